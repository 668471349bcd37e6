"""nginx, with the configuration that docs/one-machine.md has."""

import base64
import http.client
import os
import re
import ssl
import subprocess
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.documents import documented
from tests.support.processes import end, eventually, free_port
from tests.support.programs import find
from tests.support.service import Body, Client, Headers

NGINX = find("nginx")

#: What Debian's nginx.conf says, for somebody who may write into one directory alone.
_AROUND = """
{user}
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site;
}}
"""

USER, PASSWORD = "alice", "secret"


class TLSClient(Client):
    """One keep-alive connection, by somebody who has a password."""

    def __init__(self, port: int, trusted: Path, password: str = PASSWORD) -> None:
        context = ssl.create_default_context(cafile=str(trusted))
        self._connection = http.client.HTTPSConnection(
            "localhost", port, timeout=15, context=context
        )
        encoded = base64.b64encode(f"{USER}:{password}".encode()).decode()
        self._authorization = {"Authorization": f"Basic {encoded}"}

    def send(
        self, method: str, path: str, body: Body = None, headers: Headers | None = None
    ) -> None:
        super().send(method, path, body, self._authorization | dict(headers or {}))


class Nginx:
    """A running nginx before services on two ports, which need not be there yet."""

    def __init__(self, directory: Path, ports: tuple[int, int]) -> None:
        self._directory = directory
        self._authority = Authority(directory, "authority")
        self.port = free_port()
        #: The same without TLS, for a browser that trusts nobody.
        self.plain_port = free_port()
        hashed = subprocess.check_output(["openssl", "passwd", "-apr1", PASSWORD], text=True)
        (directory / "passwords").write_text(f"{USER}:{hashed}")
        changes = {
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;"
            f" listen 127.0.0.1:{self.plain_port};",
            "127.0.0.1:8081": f"127.0.0.1:{ports[0]}",
            "127.0.0.1:8082": f"127.0.0.1:{ports[1]}",
            "/etc/nginx/hello/certificate.pem": str(directory / "authority-server.pem"),
            "/etc/nginx/hello/key.pem": str(directory / "authority-server.key"),
            "/etc/nginx/hello/passwords": str(directory / "passwords"),
            "/var/log/nginx/hello.log": str(directory / "hello.log"),
        }
        (directory / "site").write_text(
            documented(
                "one-machine.md", "nginx", {re.escape(old): new for old, new in changes.items()}
            )
        )
        user = "user root;" if os.getuid() == 0 else ""
        configuration = directory / "nginx.conf"
        configuration.write_text(_AROUND.format(user=user, directory=directory))
        assert NGINX
        command = [NGINX, "-p", str(directory), "-c", str(configuration)]
        # What is wrong with the configuration goes to standard error.
        with (directory / "stderr").open("w") as said:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said)
        try:
            eventually(self._serves, message="nginx does not start")
        except BaseException:
            self.close()
            raise

    def _serves(self) -> bool:
        assert self._process.poll() is None, (self._directory / "stderr").read_text()
        try:
            with self.client("wrong") as client:
                return client.request("GET", "/").status == 401
        except OSError:
            return False

    @property
    def log(self) -> str:
        return (self._directory / "hello.log").read_text()

    def answers_of(self, port: int) -> int:
        """How many requests the service on this port has answered alone, by nginx's log."""
        return self.log.count(f" 127.0.0.1:{port} 20")

    def client(self, password: str = PASSWORD) -> TLSClient:
        return TLSClient(self.port, self._directory / "authority.pem", password)

    def close(self) -> None:
        end(self._process, within=10)
