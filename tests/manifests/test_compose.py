"""What has to fit together in compose.yaml. Docker itself is not needed to check it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.programs import find

ROOT = Path(__file__).parents[2]
NGINX = (ROOT / "compose" / "nginx.conf").read_text()


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The directory that scripts/secrets makes."""
    subprocess.run([ROOT / "scripts" / "secrets"], cwd=tmp_path, check=True)
    return tmp_path / ".secrets"


def test_compose_accepts_the_file() -> None:
    docker = find("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("needs docker compose")
    command = [docker, "compose", "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_checkouts_called_alike_leave_each_other_alone(compose: dict, tmp_path: Path) -> None:
    # Compose puts the variable into the name; Docker itself has no part in it.
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$checkout"\n')
    docker.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    projects = set()
    for parent in ("mine", "yours"):
        checkout = tmp_path / parent / "main"
        checkout.mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", checkout)
        said = subprocess.check_output(["make", "-s", "down"], cwd=checkout, env=environment)
        projects.add(compose["name"].replace("${checkout:-}", said.decode().strip()))
    assert len(projects) == 2
    for project in projects:
        assert re.fullmatch(r"hello-\d+", project)


def test_every_mounted_file_is_there(compose: dict) -> None:
    mounted = [
        volume.partition(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert len(mounted) == 3
    for path in mounted:
        assert (ROOT / path).is_file()


def test_every_secret_is_a_file_that_is_made(compose: dict, secrets: Path) -> None:
    files = {f".secrets/{file.name}" for file in secrets.iterdir()}
    assert files == {secret["file"] for secret in compose["secrets"].values()}
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
        assert "URI" not in str(service.get("environment", {}))


def test_secrets_are_made_once_and_name_the_services(compose: dict, secrets: Path) -> None:
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    subprocess.run([ROOT / "scripts" / "secrets"], cwd=secrets.parent, check=True)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
    for name, service in {"DB_URI": "primary", "DB_READ_URI": "replica"}.items():
        assert before[name] == f"postgresql://hello:{before['password']}@{service}/hello"
        assert service in compose["services"]
    assert re.fullmatch("[0-9a-f]{32}", before["password"])
    # The containers' users read the files; others on this machine cannot reach them.
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in secrets.iterdir())


def test_the_service_is_restricted_and_starts_after_what_it_needs(compose: dict) -> None:
    services = compose["services"]
    for name in ("hello-1", "hello-2", "migrate"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    needs = services["hello-1"]["depends_on"]
    assert needs["migrate"]["condition"] == "service_completed_successfully"
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            # The service's own health check is in its image.
            if how["condition"] == "service_healthy" and not needed.startswith("hello-"):
                assert "healthcheck" in services[needed]


def test_nginx_balances_the_instances_and_lets_go_of_connections_first(compose: dict) -> None:
    instances = re.findall(r"^\s+server (\S+):8080 ", NGINX, re.MULTILINE)
    assert instances == [name for name in compose["services"] if name.startswith("hello-")]
    server = (ROOT / "hello" / "server" / "configuration.py").read_text()
    [kept] = re.findall(r"^keepalive = (\d+)$", server, re.MULTILINE)
    [idle] = re.findall(r"^[^#]*keepalive_timeout (\d+)s;", NGINX, re.MULTILINE)
    assert int(idle) < int(kept)
