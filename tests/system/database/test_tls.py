"""The authority that signed the database's certificate is changed while the service runs.

The wheel's PostgreSQL was built without TLS; this needs one from the system.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import Service, migrate

#: Where Debian and its like have it.
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl"),
    pytest.mark.skipif(not INSTALLED, reason="needs a PostgreSQL with TLS in /usr/lib/postgresql"),
]


class Authority:
    """It signs certificates for localhost."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._openssl(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-subj",
            f"/CN={name}",
        )
        self._openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}-server.key",
            "-out",
            f"{name}.csr",
            "-subj",
            "/CN=localhost",
        )
        (directory / "names").write_text("subjectAltName=DNS:localhost")
        self._openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            f"{name}.pem",
            "-CAkey",
            f"{name}.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            f"{name}-server.pem",
        )

    @property
    def certificate(self) -> str:
        return (self._directory / f"{self._name}.pem").read_text()

    def install(self, cluster: Cluster) -> None:
        for suffix in ("key", "pem"):
            content = (self._directory / f"{self._name}-server.{suffix}").read_bytes()
            cluster.install(f"server.{suffix}", content)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=self._directory, check=True, capture_output=True
        )


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "old")


@pytest.fixture
def new(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "new")


@pytest.fixture
def cluster(old: Authority) -> Iterator[Cluster]:
    cluster = Cluster(INSTALLED[-1].parent).create()
    cluster.configure("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n")
    old.install(cluster)
    cluster.start()
    yield cluster
    cluster.destroy()


def present(authority: Authority, cluster: Cluster) -> None:
    """Let the server present the authority's certificate, and end what was before."""
    authority.install(cluster)
    cluster.query("SELECT pg_reload_conf()")
    cluster.terminate_sessions("postgres")


def test_an_authority_is_changed_while_the_service_runs(
    cluster: Cluster, old: Authority, new: Authority, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    trusted = secrets / "ca.pem"
    trusted.write_text(old.certificate)
    uri = (
        f"postgresql://postgres@localhost:{cluster.port}/postgres"
        f"?sslmode=verify-full&sslrootcert={trusted}"
    )
    (secrets / "DB_URI").write_text(uri)
    done = migrate(uri)
    assert done.returncode == 0, done.stderr

    with (
        Service(SECRETS_DIR=str(secrets)).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        # In the wrong order: nobody is trusted whom the service does not know.
        present(new, cluster)
        assert client.put("alice", "1990-05-18").status == 503
        assert "certificate verify failed" in service.log
        # And the way back.
        trusted.write_text(old.certificate + new.certificate)
        eventually(lambda: client.put("alice", "1990-05-18").status == 204)
        # In the right order nobody notices.
        present(old, cluster)
        assert client.put("alice", "1990-05-19").status == 204
        assert client.get("alice").status == 200
