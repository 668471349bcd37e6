"""Authorities that sign certificates, and a PostgreSQL that presents one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.postgres import Cluster

#: Where Debian and its like have it.
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))

NEEDS_TLS = [
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


def tls_cluster(authority: Authority) -> Cluster:
    """A server that runs, with a certificate of this authority."""
    cluster = Cluster(INSTALLED[-1].parent).create()
    cluster.configure("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n")
    authority.install(cluster)
    return cluster.start()
