"""manifests/aws/psql and valkey-cli: a client in a pod, and no secret in anything that is seen.

`kubectl` is a stand-in that runs here what should run in the pod; psql and PostgreSQL are real.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support.postgres import Cluster

AWS = Path(__file__).parents[2] / "manifests" / "aws"
PASSWORD = "Never0Shown"

needs_psql = pytest.mark.skipif(shutil.which("psql") is None, reason="needs psql")

#: `/tmp` of the pod is a directory of the test.
KUBECTL = """#!{python}
import json, os, subprocess, sys
from pathlib import Path

here = Path({directory!r})
arguments = sys.argv[1:]
with (here / "calls").open("a") as file:
    file.write(json.dumps(arguments) + "\\n")
if arguments[0] == "create":
    (here / "pod.yaml").write_text(sys.stdin.read())
elif arguments[0] == "exec":
    command = arguments[arguments.index("--") + 1 :]
    command = [each.replace("/tmp/", str(here / "pod") + "/") for each in command]
    sys.exit(subprocess.run(command).returncode)
"""


class Here:
    def __init__(self, directory: Path, **outputs: str) -> None:
        self.directory = directory
        (directory / "pod").mkdir()
        (directory / "bin").mkdir()
        self.program("kubectl", KUBECTL.format(python=sys.executable, directory=str(directory)))
        cases = "".join(f"{name}) echo '{value}' ;;\n" for name, value in outputs.items())
        self.program("terraform", f'#!/bin/sh\ncase $3 in\n{cases}*) echo "$3" ;;\nesac\n')
        self.program("aws", f"#!/bin/sh\necho {PASSWORD}\n")
        self.program("curl", "#!/bin/sh\necho AUTHORITIES\n")

    def program(self, name: str, text: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, stdin: str = "", **variables: str) -> str:
        done = subprocess.run(
            [AWS / script, *arguments],
            input=stdin,
            env={"PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]


@pytest.fixture(scope="module")
def database() -> Iterator[Cluster]:
    """One that asks for the password."""
    cluster = Cluster().create().start()
    cluster.query(f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
    access = Path(cluster.query("SHOW hba_file")[0][0])
    access.write_text("host all postgres 127.0.0.1/32 scram-sha-256\n")
    cluster.query("SELECT pg_reload_conf()")
    yield cluster
    cluster.destroy()


@needs_psql
def test_psql_asks_the_database_and_leaves_nothing_behind(
    database: Cluster, tmp_path: Path
) -> None:
    here = Here(tmp_path, admin_uri=database.uri())
    assert here.run("psql", "--tuples-only", "--command", "SELECT 6 * 7").strip() == "42"
    # What is piped into it is for psql.
    assert here.run("psql", "--tuples-only", "--quiet", stdin="SELECT 6 * 8;").strip() == "48"
    for call in here.calls:
        assert PASSWORD not in " ".join(call)
    assert PASSWORD not in (tmp_path / "pod.yaml").read_text()
    assert (tmp_path / "pod" / "secret").stat().st_mode & 0o077 == 0
    assert (tmp_path / "pod" / "ca.pem").read_text() == "AUTHORITIES\n"
    created, deleted = (
        [call for call in here.calls if call[0] == verb] for verb in ("create", "delete")
    )
    assert len(created) == len(deleted) == 2


@needs_psql
def test_the_pod_is_deleted_when_psql_fails(database: Cluster, tmp_path: Path) -> None:
    here = Here(tmp_path, admin_uri=database.uri())
    with pytest.raises(AssertionError, match="syntax error"):
        here.run("psql", "--command", "SELEKT")
    assert here.calls[-1][:2] == ["delete", "pod"]


def _psql(here: Here, **variables: str) -> str:
    """The URI that psql is called with."""
    here.program("psql", '#!/bin/sh\necho "$1"\n')
    return here.run("psql", **variables).strip()


def test_psql_asks_whom_it_is_told_and_no_less_strictly(tmp_path: Path) -> None:
    uri = "postgresql://admin@primary.test:5432/hello?sslmode=verify-full"
    here = Here(tmp_path, admin_uri=uri)
    assert _psql(here) == uri
    replica = uri.replace("primary.test", "replica.test")
    assert _psql(here, HOST="replica.test") == replica


def test_valkey_cli_has_the_password_from_the_pod_alone(tmp_path: Path) -> None:
    here = Here(tmp_path, cache_uri=f"rediss://:{PASSWORD}@cache.test:6379/0")
    here.program("valkey-cli", '#!/bin/sh\necho "$REDISCLI_AUTH" "$@"\n')
    shown = here.run("valkey-cli", "info", "memory").split()
    assert shown == [PASSWORD, "--tls", "-h", "cache.test", "-p", "6379", "info", "memory"]
    for call in here.calls:
        assert PASSWORD not in " ".join(call)
    assert PASSWORD not in (tmp_path / "pod.yaml").read_text()


@pytest.mark.parametrize("script", ["psql", "valkey-cli"])
def test_kubernetes_accepts_the_pod_where_security_is_restricted(
    tmp_path: Path, script: str
) -> None:
    here = Here(tmp_path, cache_uri="rediss://:x@cache.test:6379/0", admin_uri="postgresql://a@b/c")
    here.program(script, "#!/bin/sh\n")
    here.run(script)
    pod = yaml.safe_load((tmp_path / "pod.yaml").read_text())
    for version in (f"1.{minor}" for minor in range(30, 38)):
        assert kubernetes_validate.validate(pod, version, strict=True) == version
    spec = pod["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["activeDeadlineSeconds"] == 3600
