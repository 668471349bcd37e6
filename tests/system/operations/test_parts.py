"""docs/parts.md, done as it says: parts of the package in a service of somebody else's."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.processes import end, eventually, free_port
from tests.support.service import NO_SECRETS, Client

PAGE = (ROOT / "docs" / "parts.md").read_text("utf-8")
TAKE, RUN, TAKE_BATCHES = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
#: Files, each with its name in the first line.
FILES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.M | re.S))
#: What a service of parcels has no use for.
NEEDLESS = {"hello", "gevent", "httptools", "peewee", "psycopg2", "redis", "regex", "tzdata"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody has done what the page says, but for running it."""
    directory = tmp_path_factory.mktemp("parts")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "hello", directory / "hello" / "hello", ignore=ignore)
    for commands in (TAKE, TAKE_BATCHES):
        subprocess.run(["sh", "-euc", commands], cwd=directory, check=True, timeout=60)
    # Nothing of it is looked up after this.
    shutil.rmtree(directory / "hello")
    for name, text in FILES.items():
        (directory / name).write_text(text, "utf-8")
    return directory


def environment(**settings: str) -> Mapping[str, str]:
    # A control socket would be in HOME.
    return {"PATH": os.environ["PATH"], "HOME": NO_SECRETS, "SECRETS_DIR": NO_SECRETS} | settings


def python(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the directory, to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
    )


class Parcels:
    def __init__(self, port: int, log: Path) -> None:
        self.client = Client(port)
        self._log = log

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]

    @property
    def access(self) -> list[dict]:
        return [line for line in self.lines if line["logger"] == "access"]


@contextmanager
def serving(directory: Path, log: Path, **settings: str) -> Iterator[Parcels]:
    port = free_port()
    command = [sys.executable, "-m", *shlex.split(RUN), "--no-control-socket"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(PORT=str(port), **settings),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        parcels = Parcels(port, log)
        eventually(lambda: "Booting worker" in log.read_text(), within=60)
        yield parcels
        parcels.client.close()
    finally:
        end(process)


def test_nothing_else_is_needed(directory: Path) -> None:
    script = (
        "import gunicorn.app.wsgiapp, parcels.app, parcels.settings, parcels.telemetry.logs, sys\n"
        "print(*sys.modules)"
    )
    done = python(directory, "-c", script)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"parcels", "falcon", "gunicorn", "msgspec"} <= loaded
    assert loaded & NEEDLESS == set()


def test_a_wrong_setting_ends_the_start_with_a_line(directory: Path) -> None:
    done = python(directory, "-m", *shlex.split(RUN), PORT="s3cret", PATIENCE="s3cret")
    line = "parcels: PORT: must be a whole number from 0 to 65535\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_settings_are_shown_without_a_secret(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "CARRIER_URI").write_text("https://u:s3cret@carrier")
    script = (
        "import os; from parcels.settings import Settings\n"
        "settings = Settings.read(os.environ); assert 's3cret' in settings.carrier\n"
        "for row in settings.shown(): print(*row, sep=', ')"
    )
    done = python(directory, "-c", script, PATIENCE="2", SECRETS_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"CARRIER_URI, secret, file {tmp_path}/CARRIER_URI" in done.stdout
    assert "PATIENCE, 2, variable PATIENCE" in done.stdout
    assert "PORT, 8080, default" in done.stdout
    assert "s3cret" not in done.stdout


def test_it_answers_errors_as_problems_and_logs_no_path(directory: Path, tmp_path: Path) -> None:
    with serving(directory, tmp_path / "log", LOG_LEVEL="debug") as parcels:
        ask = parcels.client.request
        path = "/parcels/s3cret"
        as_curl_does = {"Content-Type": "application/x-www-form-urlencoded"}
        assert ask("PUT", path, '{"place": "Bonn"}', as_curl_does).status == 204
        found = ask("GET", path)
        assert (found.status, found.json) == (200, {"place": "Bonn"})
        refused = [
            (400, "/docs#problem-invalid-body", ask("PUT", path, '{"place": 1}')),
            (400, "/docs#problem-invalid-body", ask("PUT", path, "[" * 2000)),
            (413, "/docs#problem-body-too-large", ask("PUT", path, "[" * 5000)),
            (404, "/docs#problem-parcel-not-found", ask("GET", f"{path}-2")),
            (404, "about:blank", ask("GET", "/s3cret")),
            (405, "about:blank", ask("DELETE", path)),
        ]
        for status, type_, answer in refused:
            assert answer.status == status
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert (answer.json["type"], answer.json["status"]) == (type_, status)
            assert answer.json["request_id"] == answer.headers["X-Request-ID"]
        # A line is written after its answer was sent.
        eventually(lambda: len(parcels.access) == 2 + len(refused))
        access = parcels.access
        assert [line["message"] for line in access] == [
            "PUT 204 /parcels/{number}",
            "GET 200 /parcels/{number}",
            "PUT 400 /parcels/{number}",
            "PUT 400 /parcels/{number}",
            "PUT 413 /parcels/{number}",
            "GET 404 /parcels/{number}",
            "GET 404 other",
            "DELETE 405 /parcels/{number}",
        ]
        assert access[1]["request_id"] == found.headers["X-Request-ID"]
        assert "s3cret" not in json.dumps(parcels.lines)


#: Four requests: the others come while the first one's statement is in flight.
BATCHES = """
import gevent
from gevent.event import Event
from parcels.places import batcher

began, go_on, statements = Event(), Event(), []

def select(numbers, seconds):
    assert 0 < seconds <= 5
    statements.append(numbers)
    began.set()
    go_on.wait()
    return {number: f"at {number}" for number in numbers if number != "lost"}

places = batcher(select)
first = gevent.spawn(places.submit, "1", None)
began.wait()
others = [gevent.spawn(places.submit, number, None) for number in ("2", "lost", "2")]
gevent.sleep(0)
go_on.set()
print(*(greenlet.get() for greenlet in [first, *others]), statements, sep=", ")
"""


def test_requests_share_a_statement(directory: Path) -> None:
    done = python(directory, "-c", BATCHES)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "at 1, at 2, None, at 2, [['1'], ['2', 'lost']]\n"


def test_the_page_names_the_metrics_that_batches_count_in() -> None:
    batching = (ROOT / "hello" / "batching.py").read_text("utf-8")
    [named] = re.findall(r"^`batching.py` counts in .*?: (.*?)\.", PAGE, re.M | re.S)
    assert set(re.findall(r"\bmetrics\.(\w+)", batching)) == set(re.findall(r"`(\w+)`", named))
