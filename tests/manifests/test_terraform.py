"""What Terraform and the AWS provider themselves say of manifests/aws.

The provider comes from its registry, or from the folder that TERRAFORM_PROVIDERS names, in whatever
version is there. AWS is moto's server: nothing is sent anywhere else.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs

import pytest

from tests.support.processes import eventually, free_port
from tests.support.programs import find

AWS = Path(__file__).parents[2] / "manifests" / "aws"

VARIABLES = """
name       = "hello"
region     = "eu-central-1"
admins     = ["arn:aws:iam::111122223333:role/admin"]
api_access = []
owner      = "owner@example.com"
"""

# The state is kept beside the copy, and the version is the one that is there.
OVERRIDE = """
terraform {
  backend "local" {}

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "%s"
    }
  }
}
"""


class Configuration:
    """A copy of manifests/aws, with its provider."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = {
            name: value for name, value in os.environ.items() if name[:3] not in ("AWS", "TF_")
        }
        self._environment["CHECKPOINT_DISABLE"] = "1"

    def use(self, endpoint: str) -> None:
        self._environment |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nobody",
            "AWS_DEFAULT_REGION": "eu-central-1",
            # What moto does not know fails at once.
            "AWS_MAX_ATTEMPTS": "2",
        }

    def try_to(self, *command: str, timeout: float = 900) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    @contextmanager
    def started(self, *command: str) -> Iterator[subprocess.Popen]:
        """A command that runs, and is ended: by the second word, Terraform stops at once."""
        with (self.directory / "output").open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield process
        finally:
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)

    def run(self, *command: str) -> str:
        done = self.try_to(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


#: Why a test is skipped without a program.
NEEDS = {
    "terraform": "needs terraform",
    "moto_server": "needs moto_server, of moto",
    "aws": "needs aws, of awscli",
}


def _program(name: str) -> str:
    program = find(name)
    if program is None:
        pytest.skip(NEEDS[name])
    return program


@pytest.fixture(scope="module")
def terraform() -> str:
    return _program("terraform")


@pytest.fixture(scope="module")
def configuration(terraform: str, tmp_path_factory: pytest.TempPathFactory) -> Configuration:
    directory = tmp_path_factory.mktemp("aws")
    files = [*AWS.glob("*.tf"), *AWS.glob("*.tfvars"), AWS / "tests"]
    for path in files:
        if path.is_dir():
            shutil.copytree(path, directory / path.name)
        elif not path.name.endswith(".auto.tfvars"):
            shutil.copy(path, directory)
    (directory / "hello.auto.tfvars").write_text(VARIABLES)
    source = r'source += "hashicorp/aws"\s+version = "([^"]+)"'
    demanded = re.search(source, (AWS / "versions.tf").read_text())
    assert demanded is not None
    version, options = demanded[1], []
    folder = os.environ.get("TERRAFORM_PROVIDERS")
    if folder:
        there = sorted(Path(folder).glob("*/hashicorp/aws/*"))
        assert there, f"no provider is in {folder}"
        # A mirror has a folder for each version, or a file for each.
        version = re.findall(r"\d+\.\d+\.\d+", there[-1].name)[0]
        options = [f"-plugin-dir={folder}"]
    (directory / "here_override.tf").write_text(OVERRIDE % version)
    configuration = Configuration(directory)
    done = configuration.try_to(terraform, "init", "-no-color", *options, timeout=300)
    if done.returncode and not folder:
        pytest.skip("needs the AWS provider: its registry, or TERRAFORM_PROVIDERS=FOLDER")
    assert done.returncode == 0, done.stdout + done.stderr
    return configuration


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port at which somebody answers as AWS does."""
    program = _program("moto_server")
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as output:
        server = subprocess.Popen([program, "-p", str(port)], stdout=output, stderr=output)

    def answers() -> bool:
        with suppress(OSError):
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/moto-api/")
            return connection.getresponse().status == 200
        assert server.poll() is None, log.read_text()
        return False

    try:
        eventually(answers, within=60)
        yield port
    finally:
        server.terminate()
        server.wait()


class Recorder(ThreadingHTTPServer):
    """It passes requests on, and remembers what was asked of RDS."""

    daemon_threads = True

    def __init__(self, to: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.to = to
        self.asked: list[dict[str, str]] = []


class Passing(BaseHTTPRequestHandler):
    server: Recorder

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if b"Action=" in body:
            fields = parse_qs(body.decode())
            self.server.asked.append({name: value[0] for name, value in fields.items()})
        connection = HTTPConnection("127.0.0.1", self.server.to, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def recorder(moto: int) -> Iterator[Recorder]:
    server = Recorder(moto)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_terraform_would_format_it_no_other_way(terraform: str) -> None:
    command = [terraform, f"-chdir={AWS}", "fmt", "-check", "-diff", "-recursive"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_provider_finds_it_valid(terraform: str, configuration: Configuration) -> None:
    configuration.run(terraform, "validate", "-no-color")


def test_what_it_plans_is_what_is_meant(
    terraform: str, configuration: Configuration, moto: int
) -> None:
    configuration.use(f"http://127.0.0.1:{moto}")
    said = configuration.run(terraform, "test", "-no-color")
    assert re.search(r"^Success! \d+ passed, 0 failed\.", said, re.M), said


def test_a_database_that_was_imported_gets_the_password_that_is_kept(
    terraform: str, configuration: Configuration, recorder: Recorder
) -> None:
    """As docs/runbook.md restores: a database that Terraform has not made takes the place."""
    configuration.use(f"http://127.0.0.1:{recorder.server_port}")
    aws, apply = _program("aws"), [terraform, "apply", "-no-color", "-auto-approve"]
    parts = [
        "aws_secretsmanager_secret_version.admin",
        "aws_db_subnet_group.main",
        "aws_db_parameter_group.main",
        "aws_security_group.database",
    ]
    configuration.run(*apply, *(f"-target={part}" for part in parts))

    def kept() -> str:
        name = "hello/database/admin"
        command = (aws, "secretsmanager", "get-secret-value", "--secret-id", name)
        return configuration.run(*command, "--query", "SecretString", "--output", "text").strip()

    first = kept()
    assert re.fullmatch(r"\w{40}", first)
    keys = configuration.run(aws, "kms", "list-keys", "--output", "json")
    [key] = json.loads(keys)["Keys"]
    restored = {
        "--db-instance-identifier": "hello-primary",
        "--db-instance-class": "db.m7g.large",
        "--engine": "postgres",
        "--engine-version": "18",
        "--db-name": "hello",
        "--allocated-storage": "100",
        "--master-username": "hello_admin",
        "--master-user-password": "that-of-the-moment-restored",
        "--db-subnet-group-name": "hello",
        "--db-parameter-group-name": "hello-postgres18",
        # As a restored one has it: another key would make it another database.
        "--kms-key-id": key["KeyArn"],
    }
    create = (aws, "rds", "create-db-instance", "--storage-encrypted")
    configuration.run(*create, *(word for option in restored.items() for word in option))
    primary = "aws_db_instance.primary"
    # Unlike the command of that name, it takes a target: moto lacks what other parts read.
    block = f'import {{\n  to = {primary}\n  id = "hello-primary"\n}}\n'
    (configuration.directory / "import.tf").write_text(block)

    def given() -> list[str]:
        return [
            request["MasterUserPassword"]
            for request in recorder.asked
            if request["Action"] == "ModifyDBInstance" and "MasterUserPassword" in request
        ]

    def apply_until(number: int) -> None:
        # What comes after is of no interest: moto gives a database that was changed another number,
        # and the provider looks for it for minutes.
        with configuration.started(*apply, f"-target={primary}") as process:
            eventually(
                lambda: len(given()) == number or process.poll() is not None,
                within=600,
            )

    apply_until(1)
    assert given() == [first] == [kept()]

    # A new one goes to both.
    with (configuration.directory / "hello.auto.tfvars").open("a") as file:
        file.write("admin_password_version = 2\n")
    apply_until(2)
    assert given() == [first, kept()]
    assert kept() != first
    # It is the same database, and nobody can read its password in the state.
    actions = [request["Action"] for request in recorder.asked]
    assert actions.count("CreateDBInstance") == 1
    assert "DeleteDBInstance" not in actions
    for state in configuration.directory.glob("terraform.tfstate*"):
        assert first not in state.read_text()
        assert kept() not in state.read_text()
