"""manifests/aws/roles.sql: what the service may do, and how its password is changed."""

from pathlib import Path

import psycopg2
import pytest

from tests.system.postgres import PASSWORD_ROLE, Cluster
from tests.system.service import Service, migrate

ROLES = Path(__file__).parents[2] / "manifests" / "aws" / "roles.sql"
ADMIN = "hello_admin"


@pytest.fixture
def cloud(cluster: Cluster) -> Cluster:
    """A server as RDS hands it out: its administrator is no superuser, and owns the database."""
    cluster.query(f"CREATE ROLE {ADMIN} LOGIN CREATEROLE CREATEDB")
    cluster.query(f"CREATE DATABASE hello OWNER {ADMIN}")
    # Whoever is in it needs a password.
    cluster.query(f"CREATE ROLE {PASSWORD_ROLE}")
    return cluster


def create_role(cluster: Cluster, role: str, password: str) -> str:
    """Run the script as the administrator; return the URI with the role and its password."""
    settings = f"\\set role {role}\n\\set password {password}\n"
    cluster.psql(settings + ROLES.read_text(), "hello", ADMIN)
    cluster.query(f"GRANT {PASSWORD_ROLE} TO {role}")
    return cluster.uri("hello", role=role, password=password)


def test_a_password_is_changed_while_the_service_runs(cloud: Cluster, tmp_path: Path) -> None:
    uri = tmp_path / "DB_URI"
    uri.write_text(create_role(cloud, "hello_1", "first"))
    done = migrate(uri.read_text())
    assert done.returncode == 0, done.stderr

    with (
        Service(SECRETS_DIR=str(tmp_path)).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        assert set(cloud.lanes("hello").values()) == {"hello_1"}

        new = create_role(cloud, "hello_2", "second")
        uri.write_text(new)
        assert client.put("alice", "1990-05-18").status == 204
        # Nobody needs the old one any more.
        cloud.query("ALTER ROLE hello_1 NOLOGIN")
        cloud.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hello_1'"
        )
        assert client.put("alice", "1990-05-19").status == 204
        assert client.get("alice").status == 200
        assert set(cloud.lanes("hello").values()) == {"hello_2"}

    # The next release's migrations own what those of the first one made, whoever ran them.
    done = migrate(new, "--down")
    assert done.returncode == 0, done.stderr
    assert migrate(new).returncode == 0
    owners = cloud.query(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", "hello"
    )
    assert owners == [("hello",)]

    # And back again, with a third password for the first role.
    third = create_role(cloud, "hello_1", "third")
    assert migrate(third, "--check").returncode == 0


def test_nobody_else_may_enter(cloud: Cluster) -> None:
    create_role(cloud, "hello_1", "first")
    cloud.query("CREATE ROLE stranger LOGIN")
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        psycopg2.connect(cloud.uri("hello", role="stranger"))
    with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
        psycopg2.connect(cloud.uri("hello", role="hello"))
