"""The barest worker that answers wrk: no deadline, no check, no limit. It is no server."""

import io
from email.utils import formatdate

from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import GeventWorker


class Bare(GeventWorker):
    def handle(self, listener, client, peer):
        name, port = listener.getsockname()
        base = base_environ(self.cfg) | {
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": name,
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
        }
        started = []

        def start_response(status, headers, exc_info=None):
            started[:] = status, headers

        with client:
            while data := client.recv(8192):
                head, _, body = data.partition(b"\r\n\r\n")
                line, *fields = head.decode("latin-1").split("\r\n")
                environ = base.copy()
                environ["REQUEST_METHOD"], environ["PATH_INFO"], _ = line.split(" ")
                for field in fields:
                    key, _, value = field.partition(": ")
                    environ[f"HTTP_{key.upper().replace('-', '_')}"] = value
                if length := environ.pop("HTTP_CONTENT_LENGTH", None):
                    environ["CONTENT_LENGTH"] = length
                environ["wsgi.input"] = io.BytesIO(body)
                content = b"".join(self.wsgi(environ, start_response))
                status, headers = started
                lines = [f"HTTP/1.1 {status}", f"Date: {formatdate(usegmt=True)}"]
                lines += [f"{key}: {value}" for key, value in headers]
                client.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1") + content)
