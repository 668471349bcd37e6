"""manifests/aws/create-role: what the service may do, and how its password is changed."""

import os
import subprocess
from pathlib import Path

import psycopg2
import pytest

from tests.support.postgres import PASSWORD_ROLE, Cluster
from tests.support.service import Service, forget, migrate

SCRIPT = Path(__file__).parents[3] / "manifests" / "aws" / "create-role"
ADMIN, ADMIN_PASSWORD = "hello_admin", "admin's"

# What stands for AWS and the cluster. The script, psql and PostgreSQL are real.
PROGRAMS = {
    "terraform": 'eval echo "\\$output_$3"',
    "aws": 'while [ "$1" != --secret-id ]; do shift; done; eval echo "\\$secret_$2"',
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


def create_role(cluster: Cluster, programs: Path, role: str, password: str) -> str:
    """Run the script; return the URI with the role and its password."""
    done = subprocess.run(
        [SCRIPT],
        env={
            "PATH": f"{programs}:{cluster.programs}:{os.environ['PATH']}",
            "output_region": "eu-central-1",
            "output_admin_secret": "admin",
            "output_service_secret": "service",
            "output_service_role": role,
            "output_admin_uri": cluster.uri("hello", role=ADMIN),
            "secret_admin": ADMIN_PASSWORD,
            "secret_service": password,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert password not in done.stdout + done.stderr
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
