"""What the service prints, in every state: lines that machines read, and nothing secret."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import eventually, free_port
from tests.support.service import NO_SECRETS, Client, Service, head
from tests.support.valkey import Valkey

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def lines(service: Service) -> list[dict]:
    """Every line, which must be JSON and say when, how bad, who and what."""
    found = [json.loads(line) for line in service.log.splitlines()]
    for line in found:
        assert {"time", "level", "logger", "pid", "message"} <= line.keys()
    return found


def access_lines(service: Service, number: int) -> list[dict]:
    """The lines of requests, but for the one that waited until the service was ready."""

    def written() -> list[dict]:
        found = [line for line in lines(service) if line["logger"] == "access"]
        found = [line for line in found if line["route"] != "/health/ready"]
        return found if len(found) >= number else []

    found = eventually(written)
    assert len(found) == number
    return found


def test_every_event_is_a_line_of_json() -> None:
    with Service(LOG_LEVEL="debug", ACCESS_LOG="on").wait_until() as service:
        with service.client() as client:
            client.get("alice")
        with service.wire() as wire:
            wire.send(b"malformed\r\n\r\n")
            assert wire.answer().status == 400
        service.terminate()
        assert service.process.wait(20) == 0
        found = lines(service)
        assert {"hello", "gunicorn"} >= {line["logger"].split(".")[0] for line in found} - {
            "access"
        }
        assert {"debug", "info", "warning"} <= {line["level"] for line in found}
        assert any(line["message"].startswith("refused what ") for line in found)


def test_an_access_line_says_what_belongs_to_the_request_alone() -> None:
    with Service(ACCESS_LOG="on").wait_until() as service, service.client() as client:
        headers = {"X-Request-ID": "asked-for", "traceparent": TRACEPARENT}
        answer = client.request("GET", "/hello/alice", headers=headers)
        # gunicorn's own path, and the same line.
        with service.wire() as wire:
            fields = [f"{name}: {value}" for name, value in headers.items()]
            wire.send(head("GET /hello/alice", *fields, "Connection: close"))
            assert wire.answer().status == 404
        client.request("RUMPEL", "/")
        client.request("GET", "/nowhere/Rumpelstilz")
        found = access_lines(service, 4)
        for line in found[:2]:
            assert 0 < line.pop("duration_ms") < 10_000
            assert line.pop("time")
            assert line.pop("pid") in service.workers
            assert line == {
                "level": "info",
                "logger": "access",
                "message": "GET 404 /hello/{username}",
                "method": "GET",
                "route": "/hello/{username}",
                "status": 404,
                "bytes": len(answer.body),
                "request_id": "asked-for",
                "trace_id": TRACE,
                "span_id": SPAN,
            }
        assert [line["message"] for line in found[2:]] == ["other 400 /", "GET 404 other"]
        assert all("trace_id" not in line for line in found[2:])


def answers(port: int) -> bool:
    try:
        with Client(port) as client:
            return client.request("GET", "/").status == 200
    except OSError:
        return False


def test_a_terminal_shows_text() -> None:
    ours, theirs = pty.openpty()
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "PORT": str(port), "ADMIN_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "hello", "serve"],
        env=environment | {"SECRETS_DIR": NO_SECRETS},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while b"Booting worker" not in seen:
            seen += os.read(ours, 4096)
        eventually(lambda: answers(port), within=20)
    finally:
        process.terminate()
        with suppress(OSError):  # Linux says so at the end
            while os.read(ours, 4096):
                pass
        process.wait(20)
        os.close(ours)
    assert " INFO gunicorn[" in seen.decode()
    assert "{" not in seen.decode()


# Secrets.

SECRETS = {name: f"s3cr%t-{name}/\u00e9" for name in ("primary", "replica", "cache")}

#: What no line may hold: each secret as it is and as it stands in its URI, and personal data.
NEVER = [
    *(form for secret in SECRETS.values() for form in (secret, quote(secret, safe=""))),
    *("s3cr", "Rumpelstilz", "Rumpel", "RUMPEL", "1990", "postgresql://", "redis://"),
]


def uris(postgresql: int, valkey: int, role: str, **passwords: str) -> dict[str, str]:
    secrets = {name: quote(text, safe="") for name, text in (SECRETS | passwords).items()}
    return {
        "DB_URI": f"postgresql://{role}:{secrets['primary']}@127.0.0.1:{postgresql}/postgres",
        "DB_READ_URI": f"postgresql://{role}:{secrets['replica']}@127.0.0.1:{postgresql}/postgres",
        "CACHE_URI": f"redis://:{secrets['cache']}@127.0.0.1:{valkey}/0",
    }


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    valkey = Valkey().start()
    with valkey.client as client:
        client.config_set("requirepass", SECRETS["cache"])
    yield valkey
    valkey.destroy()


@pytest.fixture
def role(shared_cluster: Cluster, database: str) -> str:
    return shared_cluster.create_role(SECRETS["primary"], database)


def use(service: Service) -> None:
    """Send requests with personal data, well-formed and not."""
    born = '{"dateOfBirth": "1990-05-17"}'
    with service.client() as client:
        for body in (born, born[:-1], born.replace("05", "13"), f"[{born}"):
            client.request("PUT", "/hello/Rumpelstilz?tz=Rumpel/stilz", body)
            client.request("PUT", "/hello/Rumpelstilz", body)
        client.get("Rumpelstilz")
        client.get("Rumpelstilz 1990-05-17")
        client.request("RUMPEL", "/Rumpelstilz?1990-05-17", headers={"X-Request-ID": "1990 !"})
        client.request("GET", "/health")
        client.request("GET", "/health", headers={"traceparent": "00-Rumpelstilz-1990-01"})
    for request in (
        b"Rumpelstilz 1990-05-17\r\n\r\n",
        head("GET /hello/Rumpelstilz", "Expect: 1990-05-17"),
        head("PUT /hello/Rumpelstilz", "Transfer-Encoding: chunked") + b"1990-05-17\r\n",
        head("GET /hello/Rumpelstilz", f"X-Long: {'1990' * 3000}"),
    ):
        with service.wire() as wire:
            wire.send(request)
            wire.answer()


@pytest.mark.parametrize(
    ("state", "form"),
    [
        ("well", "json"),
        ("wrong passwords", "json"),
        ("wrong passwords", "text"),
        ("unreachable", "json"),
    ],
)
def test_nothing_secret_or_personal_is_printed(
    shared_cluster: Cluster, database: str, role: str, valkey: Valkey, state: str, form: str
) -> None:
    if state == "well":
        settings = uris(shared_cluster.port, valkey.port, role, replica=SECRETS["primary"])
    elif state == "wrong passwords":
        wrong = {name: f"{text}s3cr%tly-wrong" for name, text in SECRETS.items()}
        settings = uris(shared_cluster.port, valkey.port, role, **wrong)
    else:
        settings = uris(free_port(), free_port(), role)
    settings = {k: v.replace("/postgres", f"/{database}") for k, v in settings.items()}
    settings |= {"LOG_LEVEL": "debug", "ACCESS_LOG": "on", "LOG_FORMAT": form}
    settings |= {"ADMIN_PORT": str(free_port())}
    with Service(**settings).wait_until(status=200 if state == "well" else 503) as service:
        use(service)
        if state != "well":
            eventually(lambda: "the primary does not answer" in service.log)
            # Without the primary nobody has asked the cache yet. This does.
            with service.client() as client:
                dependencies = client.request("GET", "/health").json["dependencies"]
            assert {dependency["state"] for dependency in dependencies.values()} == {"down"}
        service.terminate()
        assert service.process.wait(20) == 0
        # Ids of requests, of processes and ports may hold the digits of a year.
        log = re.sub(r"\b([0-9a-f]{32}|\d{5,7})\b", "", service.log)
        for text in NEVER:
            assert text not in log
        assert len(service.log) > 5000
        if form == "json":
            lines(service)


@pytest.mark.parametrize(
    ("name", "where", "broken"),
    [
        ("DB_URI", "variable", "mysql://user:s3cr%t@host/1990"),
        ("DB_READ_URI", "variable", "postgresql://user:s3cr/t@host/hello"),
        ("CACHE_URI", "file", "redis://:s3cr/t@host:port/0"),
    ],
)
def test_a_broken_setting_is_printed_without_its_value(
    tmp_path: Path, name: str, where: str, broken: str
) -> None:
    settings = {"DB_URI": "postgresql://user@localhost/hello", "LOG_LEVEL": "debug"}
    if where == "file":
        (tmp_path / name).write_text(broken)
        settings |= {"SECRETS_DIR": str(tmp_path), name: ""}
    else:
        settings[name] = broken
    done = subprocess.run(
        [sys.executable, "-m", "hello", "serve"],
        env={"PATH": os.environ["PATH"], "SECRETS_DIR": NO_SECRETS} | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"hello: {name}: ")
    assert "s3cr" not in done.stderr
    assert "1990" not in done.stderr
