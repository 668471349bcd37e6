"""The authority that signed the database's certificate is changed while the service runs.

The wheel's PostgreSQL was built without TLS; this needs one from the system.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import NEEDS_TLS, Authority, tls_cluster
from tests.support.postgres import Cluster
from tests.support.processes import eventually
from tests.support.service import Service, migrate

pytestmark = NEEDS_TLS


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "old")


@pytest.fixture
def new(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "new")


@pytest.fixture
def cluster(old: Authority) -> Iterator[Cluster]:
    cluster = tls_cluster(old)
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
