"""manifests/aws/create-role: what the service may do, and how its password is changed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.support.certificates import NEEDS_TLS, Authority, tls_cluster
from tests.support.postgres import PASSWORD_ROLE, Cluster
from tests.support.service import Service, forget, migrate

SCRIPT = Path(__file__).parents[3] / "manifests" / "aws" / "create-role"
ADMIN, ADMIN_PASSWORD = "hello_admin", "admin's"

# What stands for AWS and the cluster. The script, psql and PostgreSQL are real.
PROGRAMS = {
    "terraform": 'eval echo "\\$output_$3"',
    "aws": 'while [ "$1" != --secret-id ]; do shift; done; eval echo "\\$secret_$2"',
    "curl": 'while [ "$#" != 1 ]; do shift; done; cat "$1"',
    # A pod that runs the command, with the standard input.
    "kubectl": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
}


@pytest.fixture
def cloud(cluster: Cluster) -> Cluster:
    """A server as RDS hands it out: its administrator is no superuser, and owns the database."""
    cluster.query(f"CREATE ROLE {PASSWORD_ROLE}")
    cluster.query(
        f"CREATE ROLE {ADMIN} LOGIN CREATEROLE CREATEDB PASSWORD %s IN ROLE {PASSWORD_ROLE}",
        parameters=(ADMIN_PASSWORD,),
    )
    cluster.query(f"CREATE DATABASE hello OWNER {ADMIN}")
    return cluster


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, text in PROGRAMS.items():
        program = directory / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    return directory


def run(
    cluster: Cluster, programs: Path, role: str, password: str, authorities: str, uri: str
) -> subprocess.CompletedProcess:
    published = programs.parent / "bundle.pem"
    published.write_text(authorities)
    done = subprocess.run(
        [SCRIPT],
        env={
            "PATH": f"{programs}:{cluster.programs}:{os.environ['PATH']}",
            "TMPDIR": str(programs.parent),
            "output_region": "eu-central-1",
            "output_authorities": str(published),
            "output_admin_secret": "admin",
            "output_service_secret": "service",
            "output_service_role": role,
            "output_admin_uri": uri,
            "secret_admin": ADMIN_PASSWORD,
            "secret_service": password,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert password not in done.stdout + done.stderr
    return done


def create_role(cluster: Cluster, programs: Path, role: str, password: str) -> str:
    """Run the script; return the URI with the role and its password."""
    uri = cluster.uri("hello", role=ADMIN)
    done = run(cluster, programs, role, password, "", uri)
    assert done.returncode == 0, done.stderr
    cluster.query(f"GRANT {PASSWORD_ROLE} TO {role}")
    return cluster.uri("hello", role=role, password=password)


def test_a_password_is_changed_while_the_service_runs(
    cloud: Cluster, programs: Path, tmp_path: Path
) -> None:
    uri = tmp_path / "DB_URI"
    uri.write_text(create_role(cloud, programs, "hello_1", "first"))
    done = migrate(uri.read_text())
    assert done.returncode == 0, done.stderr

    with (
        Service(SECRETS_DIR=str(tmp_path)).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("alice", "1990-05-17").status == 204
        assert set(cloud.lanes("hello").values()) == {"hello_1"}

        new = create_role(cloud, programs, "hello_2", "second")
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
        assert forget("alice", DB_URI=new).returncode == 0
        assert client.get("alice").status == 404

    # The next release's migrations own what those of the first one made, whoever ran them.
    done = migrate(new, "--down", "--yes")
    assert done.returncode == 0, done.stderr
    assert migrate(new).returncode == 0
    owners = cloud.query(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", "hello"
    )
    assert owners == [("hello",)]

    # And back again, with a third password for the first role.
    third = create_role(cloud, programs, "hello_1", "third")
    assert migrate(third, "--check").returncode == 0


def test_nobody_else_may_enter(cloud: Cluster, programs: Path) -> None:
    create_role(cloud, programs, "hello_1", "first")
    cloud.query("CREATE ROLE stranger LOGIN")
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        psycopg2.connect(cloud.uri("hello", role="stranger"))
    with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
        psycopg2.connect(cloud.uri("hello", role="hello"))


class TestVerifies:
    """The administrator's password goes to nobody but the server that RDS's authorities know."""

    pytestmark = NEEDS_TLS

    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[Cluster]:
        cluster = tls_cluster(Authority(tmp_path, "known"))
        yield cluster
        cluster.destroy()

    @pytest.mark.parametrize("known", [True, False])
    def test_who_the_server_is(
        self, cloud: Cluster, programs: Path, tmp_path: Path, known: bool
    ) -> None:
        authority = tmp_path / "known.pem" if known else None
        trusted = authority.read_text() if authority else Authority(tmp_path, "other").certificate
        uri = f"postgresql://{ADMIN}@localhost:{cloud.port}/hello?sslmode=verify-full"
        done = run(cloud, programs, "hello_1", "first", trusted, uri)
        assert ("certificate verify failed" in done.stderr) is not known
        # The first thing that is done inside; what follows needs PostgreSQL 16.
        assert (cloud.query("SELECT to_regrole('hello')") == [("hello",)]) is known
