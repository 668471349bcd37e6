"""The server, in both ways to start it: what it makes of the bytes on a connection."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.support.processes import eventually, free_port
from tests.support.service import Service, Wire, head

COMMANDS = {
    "python -m hello serve": [sys.executable, "-m", "hello", "serve"],
    "gunicorn": [
        str(Path(sys.executable).with_name("gunicorn")),
        *("-c", "python:hello.server", "hello.app:wsgi()"),
    ],
}

BIRTHDAY = b'{"dateOfBirth": "1990-05-17"}'
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module", params=COMMANDS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    # Shorter than usual, since some of these tests wait for its end.
    with Service(COMMANDS[request.param], BODY_TIMEOUT="2").wait_until() as service:
        yield service


@pytest.fixture
def wire(service: Service) -> Iterator[Wire]:
    with service.wire() as wire:
        yield wire


def put(username: str, *fields: str, body: bytes = BIRTHDAY) -> bytes:
    return head(f"PUT /hello/{username}", *fields, f"Content-Length: {len(body)}") + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def padded(size: int) -> bytes:
    """A valid body of `size` bytes."""
    return BIRTHDAY + b" " * (size - len(BIRTHDAY))


def message(username: str) -> str:
    return f"Hello, {username}! "


def test_contract(service: Service) -> None:
    with service.client() as client:
        root = client.request("GET", "/")
        assert (root.status, root.body) == (200, b"Hello, world!")
        assert client.get("contract").status == 404
        stored = client.put("contract", "1990-05-17")
        assert (stored.status, stored.body) == (204, b"")
        assert "Content-Length" not in stored.headers
        found = client.get("contract")
        assert found.status == 200
        assert found.headers["Content-Type"] == "application/json"
        assert found.json["message"].startswith(message("contract"))
        like_get = client.request("HEAD", "/hello/contract")
        assert (like_get.status, like_get.body) == (200, b"")
        assert like_get.headers["Content-Length"] == str(len(found.body))
        allowed = client.request("OPTIONS", "/hello/contract").headers["Allow"]
        assert {"GET", "HEAD", "PUT"} <= set(allowed.split(", "))
        wrong = client.request("DELETE", "/hello/contract")
        assert (wrong.status, wrong.headers["Content-Type"]) == (405, PROBLEM)
        for path in ("/health", "/health/live", "/health/ready", "/health/startup"):
            assert client.request("GET", path).status == 200


@pytest.mark.parametrize("name", ["Zo%C3%AB", "Zo%c3%ab", "Zoe%CC%88", "%5A%6F%C3%AB", "ZoÃ«"])
def test_every_spelling_of_a_username_is_the_same_user(wire: Wire, name: str) -> None:
    # The last one is raw UTF-8: `head` writes Latin-1.
    wire.send(put(name) + head(f"GET /hello/{name}"))
    assert wire.answer("PUT").status == 204
    assert wire.answer().json["message"].startswith(message("Zoë"))


@pytest.mark.parametrize("name", ["%FF", "\xff", "Zo\xeb", "%ED%A0%80", "%C0%AF", "%00", "%", "%2"])
def test_malformed_username(wire: Wire, name: str) -> None:
    wire.send(head(f"GET /hello/{name}", "Connection: close"))
    assert wire.answer().status == 400
    assert wire.closed()


def test_absolute_form(wire: Wire) -> None:
    wire.send(head("GET http://hello/health/live"))
    assert wire.answer().json == {"status": "live"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
        (b"GET http://hello/health/live HTTP/1.1\r\n\r\n", 400),
        # Load balancers that check no more than an address send this.
        (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
    ],
    ids=["HTTP/1.1", "absolute form", "HTTP/1.0"],
)
def test_only_http_1_0_does_without_host(wire: Wire, request_: bytes, status: int) -> None:
    wire.send(request_)
    assert wire.answer().status == status


def test_options_of_the_server(wire: Wire) -> None:
    wire.send(head("OPTIONS *") + head("GET *"))
    answer = wire.answer("OPTIONS")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, PUT"
    assert answer.headers["X-Request-ID"]
    assert wire.answer().status == 400


@pytest.mark.parametrize("coding", ["unheard-of", "gzip, chunked", "unheard-of, chunked"])
def test_unknown_transfer_coding(wire: Wire, coding: str) -> None:
    wire.send(head(FRAMED, f"Transfer-Encoding: {coding}") + chunked(BIRTHDAY))
    assert wire.answer("PUT").status == 501
    assert wire.closed()


@pytest.mark.parametrize(
    "request_",
    [b"GET\xc3\x9f / HTTP/1.1", b"\xef\xbb\xbfGET / HTTP/1.1", b"GET / HTTP/1.1\xc3\x9f"],
    ids=["method", "byte order mark", "version"],
)
def test_only_the_target_may_hold_raw_utf_8(wire: Wire, request_: bytes) -> None:
    wire.send(request_ + b"\r\nHost: hello\r\n\r\n")
    assert wire.answer().status == 400
    assert wire.closed()


def test_refused_request_is_answered_as_any_other(wire: Wire) -> None:
    wire.send(head("GET /", "Content-Length: -1"))
    answer = wire.answer()
    assert (answer.status, answer.headers["Content-Type"]) == (400, PROBLEM)
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert answer.json["title"] == "Bad Request"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert parsedate_to_datetime(answer.headers["Date"])
    assert answer.headers["Content-Length"] == str(len(answer.body))


def test_refusals_are_logged_once_in_a_while() -> None:
    with Service().wait_until() as service:
        for _ in range(50):
            with service.wire() as wire:
                wire.send(head("GET /", "Content-Length: -1"))
                assert wire.answer().status == 400
        assert service.log.count("refused what 127.0.0.1 sent") <= 5


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (["--keep-alive", "0"], "keepalive"),
        (["--proxy-protocol", "v1"], "proxy_protocol"),
        (["--worker-class", "sync"], "worker_class"),
        (["--certfile", "cert.pem", "--keyfile", "key.pem"], "certfile"),
    ],
)
def test_what_would_have_another_loop_serve_is_refused(option: list[str], reason: str) -> None:
    for command in COMMANDS.values():
        done = subprocess.run(
            [*command, *option],
            env={"PATH": os.environ["PATH"], "ADMIN_PORT": "0", "PORT": str(free_port())},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("hello: ")]
        assert reason in line
        assert "Traceback" not in done.stdout + done.stderr


def test_malformed_request_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [*COMMANDS["python -m hello serve"], "--bind", f"unix:{path}"]
    with Service(command) as service, socket.socket(socket.AF_UNIX) as sock:
        eventually(path.exists, within=20)
        sock.connect(str(path))
        sock.sendall(b"GET /hello/Rumpelstilz 1990-05-17\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert "Rumpelstilz" not in service.log
        assert "Traceback" not in service.log


def test_http_1_0_closes(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.0\r\n\r\n")
    assert wire.answer().body == b"Hello, world!"
    assert wire.closed()


def test_http_1_0_keeps_alive_when_asked(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
    assert wire.answer().headers["Connection"] == "keep-alive"
    assert wire.answer().body == b"Hello, world!"


def test_connection_close_is_obeyed(wire: Wire) -> None:
    wire.send(head("GET /", "Connection: close"))
    assert wire.answer().headers["Connection"] == "close"
    assert wire.closed()


def test_chunked_body(wire: Wire) -> None:
    wire.send(head("PUT /hello/chunked", "Transfer-Encoding: chunked"))
    wire.send(chunked(*(bytes([byte]) for byte in BIRTHDAY)))
    assert wire.answer("PUT").status == 204
    wire.send(head("PUT /hello/chunked", "Transfer-Encoding: chunked"))
    wire.send(b'%X;name="value"\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n' % (30, padded(30)))
    wire.send(head("GET /hello/chunked"))
    assert wire.answer("PUT").status == 204
    assert wire.answer().status == 200


@pytest.mark.parametrize("size", [4096, 4097, 100_000])
def test_limit_of_the_body(wire: Wire, size: int) -> None:
    wire.send(put("limited", body=padded(size)))
    answer = wire.answer("PUT")
    assert answer.status == (204 if size <= 4096 else 413)
    assert (answer.headers["Connection"] == "close") == (size > 4096)


@pytest.mark.parametrize("size", [4096, 4097, 100_000])
def test_limit_of_a_chunked_body(wire: Wire, size: int) -> None:
    body = padded(size)
    wire.send(head("PUT /hello/limited", "Transfer-Encoding: chunked"))
    wire.send(chunked(*(body[i : i + 1000] for i in range(0, size, 1000))))
    answer = wire.answer("PUT")
    assert answer.status == (204 if size <= 4096 else 413)
    assert (answer.headers["Connection"] == "close") == (size > 4096)


@pytest.mark.parametrize("framing", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_body_too_large_is_answered_while_it_is_sent(wire: Wire, framing: str) -> None:
    part = chunked(bytes(1000)).removesuffix(b"0\r\n\r\n")
    wire.send(head("PUT /hello/large", framing))
    with suppress(ConnectionError):
        while not select.select([wire.socket], [], [], 0)[0]:
            wire.send(part)
    answer = wire.answer("PUT")
    assert (answer.status, answer.headers["Content-Type"]) == (413, PROBLEM)

    def refuses_more() -> bool:
        try:
            wire.send(part)
        except ConnectionError:
            return True
        return False

    eventually(refuses_more)


def test_body_too_large_is_answered_to_who_reads_late(wire: Wire) -> None:
    # As curl does: it sends on for a while, whatever comes back.
    with suppress(ConnectionError):
        wire.send(put("large", body=bytes(4_000_000)))
    assert wire.answer("PUT").status == 413


def test_expect_100_continue(wire: Wire) -> None:
    wire.send(head("PUT /hello/expecting", "Expect: 100-continue", "Content-Length: 29"))
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert wire.read(len(go_on)) == go_on
    wire.send(BIRTHDAY)
    assert wire.answer("PUT").status == 204


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    wire.send(
        put("first")
        + head("GET /hello/first")
        + head("HEAD /hello/first")
        + head("PUT /hello/second", "Transfer-Encoding: chunked")
        + chunked(BIRTHDAY[:10], BIRTHDAY[10:])
        + head("GET /hello/second")
        + head("GET /hello/third")
        + head("GET /", "Connection: close")
        + head("GET /")
    )
    assert wire.answer("PUT").status == 204
    assert wire.answer().json["message"].startswith(message("first"))
    assert wire.answer("HEAD").status == 200
    assert wire.answer("PUT").status == 204
    assert wire.answer().json["message"].startswith(message("second"))
    assert wire.answer().status == 404
    assert wire.answer().body == b"Hello, world!"
    assert wire.closed()


def test_request_may_be_split_anywhere(service: Service, wire: Wire) -> None:
    request = (
        put("split", "X-Request-ID: split")
        + head("PUT /hello/split", "Transfer-Encoding: chunked")
        + chunked(BIRTHDAY[:7], BIRTHDAY[7:])
        + head("GET /hello/split")
    )
    with service.client() as neighbour:
        for middle in range(1, len(request)):
            wire.send(request[:middle])
            # While this is answered, the first part is read.
            assert neighbour.request("GET", "/health/live").status == 200
            wire.send(request[middle:])
            statuses = [wire.answer(method).status for method in ("PUT", "PUT", "GET")]
            assert statuses == [204, 204, 200], f"split after {request[:middle]!r}"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (head(f"GET /hello/{'a' * 4094}"), 414),
        (head("GET /", f"X-Long: {'a' * 9000}"), 431),
        (head("GET /", *["X-Many: 1"] * 200), 431),
    ],
    ids=["line", "field", "fields"],
)
def test_limits_of_the_head(wire: Wire, request_: bytes, status: int) -> None:
    wire.send(request_)
    answer = wire.answer()
    assert (answer.status, answer.headers["Connection"]) == (status, "close")
    assert wire.closed()


def test_head_without_an_end_is_refused(wire: Wire) -> None:
    wire.send(head("GET /").removesuffix(b"\r\n"))
    with suppress(ConnectionError):
        while not select.select([wire.socket], [], [], 0)[0]:
            wire.send(b"X-Endless: 1\r\n" * 10)
    assert wire.answer().status == 431


LENGTH, CHUNKED = "Content-Length: 29", "Transfer-Encoding: chunked"
FRAMED = "PUT /hello/framed"

WRONG_FRAMING = {
    "two lengths": head(FRAMED, LENGTH, LENGTH) + BIRTHDAY,
    "list of lengths": head(FRAMED, "Content-Length: 29, 29") + BIRTHDAY,
    "negative length": head(FRAMED, "Content-Length: -1") + BIRTHDAY,
    "length with a sign": head(FRAMED, "Content-Length: +29") + BIRTHDAY,
    "hexadecimal length": head(FRAMED, "Content-Length: 0x1d") + BIRTHDAY,
    "superscript length": head(FRAMED, "Content-Length: \xb2") + BIRTHDAY,
    "length beyond integers": head(FRAMED, f"Content-Length: {'9' * 5000}") + BIRTHDAY,
    "length and chunked": head(FRAMED, LENGTH, CHUNKED) + chunked(BIRTHDAY),
    "chunked twice": head(FRAMED, f"{CHUNKED}, chunked") + chunked(BIRTHDAY),
    "chunked not last": head(FRAMED, f"{CHUNKED}, gzip") + chunked(BIRTHDAY),
    "not chunked": head(FRAMED, "Transfer-Encoding: identity") + BIRTHDAY,
    "chunks without CR": head(FRAMED, CHUNKED) + chunked(BIRTHDAY).replace(b"\r\n", b"\n"),
    "negative chunk": head(FRAMED, CHUNKED) + b"-1d\r\n" + BIRTHDAY,
    "chunk too short": head(FRAMED, CHUNKED) + b"1e\r\n" + BIRTHDAY + b"\r\n0\r\n\r\n",
    "chunk too long": head(FRAMED, CHUNKED) + b"1c\r\n" + BIRTHDAY + b"\r\n0\r\n\r\n",
    "no chunk at all": head(FRAMED, CHUNKED) + BIRTHDAY + b"\r\n",
    "head without CR": head("GET /").replace(b"\r\n", b"\n"),
    "folded field": head("GET /", " X-Folded: 1"),
    "space before colon": head("GET /", "X-Space : 1"),
    "control character": head("GET /", "X-Control: \x00"),
    "space in the path": head("GET / /"),
    "HTTP/2": b"GET / HTTP/2.0\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("case", WRONG_FRAMING)
def test_wrong_framing_is_refused_and_ends_the_connection(wire: Wire, case: str) -> None:
    # What follows must not be taken for a request.
    wire.send(WRONG_FRAMING[case] + head("GET /"))
    answer = wire.answer()
    assert (answer.status, answer.headers["Connection"]) == (400, "close")
    assert wire.closed()


UNUSUAL = {
    "unknown expectation": head("GET /", "Expect: the unexpected"),
    "SCRIPT_NAME": head("GET /", "Script_Name: /elsewhere"),
    "two schemes": head("GET /", "X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
    "upgrade": head("GET /", "Upgrade: h2c", "HTTP2-Settings: ", "Connection: Upgrade"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": head("CONNECT hello:80"),
    "OPTIONS *": head("OPTIONS *"),
    "TRACE": head("TRACE /"),
    "unknown method": head("BREW /"),
    "encoded slashes": head("GET /hello/%2F%2F"),
    "double slash": head("GET //"),
    "malformed query": head("GET /hello/alice?tz=%FF&tz=&&=;#"),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_client_cannot_cause_a_server_error(service: Service, wire: Wire, case: str) -> None:
    wire.send(UNUSUAL[case])
    assert wire.answer().status < 500
    assert "Traceback" not in service.log


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 29\r\n\r\n" + BIRTHDAY,
        b"Content-Length: 5000\r\n\r\n" + bytes(5000),
        b"Content-Length: 1000000\r\n\r\n" + bytes(1_000_000),
        b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BIRTHDAY, BIRTHDAY),
        b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*[bytes(1000)] * 1000),
        b"Transfer-Encoding: chunked\r\n\r\nmalformed\r\n",
        b"Content-Length: 15\r\n\r\n",
    ],
    ids=["short", "long", "huge", "chunked", "huge chunked", "malformed", "late"],
)
@pytest.mark.parametrize(
    ("line", "status"),
    [("PUT /nowhere", 404), ("POST /hello/alice", 405), ("PUT /hello/no%20name", 400)],
)
def test_body_that_nobody_reads(wire: Wire, line: str, status: int, body: bytes) -> None:
    """The bytes after it are a request, or the answer has said that the connection ends."""
    wire.send(head(line).removesuffix(b"\r\n"))
    with suppress(ConnectionError):
        wire.send(body)
    answer = wire.answer()
    assert answer.status == status
    if answer.headers["Connection"] == "close":
        assert wire.closed()
    else:
        if body.endswith(b"Content-Length: 15\r\n\r\n"):
            wire.send(b"GET / HTTP/1.0\r")
        wire.send(head("GET /hello/nobody", "X-Request-ID: next"))
        assert wire.answer().headers["X-Request-ID"] == "next"


def test_answer_is_one_segment(service: Service) -> None:
    """A client that reads once gets head and body together."""
    with service.client() as client:
        client.put("segment", "1990-05-17")
    with service.wire() as wire:
        wire.send(head("GET /hello/segment"))
        select.select([wire.socket], [], [], 15)
        first = wire.socket.recv(65536)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith((b'day(s)"}', b'birthday!"}'))


def test_nothing_is_logged_for_a_request(service: Service) -> None:
    before = service.log
    with service.client() as client:
        client.put("quiet", "1990-05-17")
        client.put("quiet", "1990-02-30")
        client.get("quiet")
        client.get("unknown")
        client.get("not allowed")
        client.request("DELETE", "/hello/quiet")
        client.request("GET", "/nowhere")
        client.request("PUT", "/hello/quiet", b"not JSON")
        client.request("PUT", "/hello/quiet", padded(5000))
    assert service.log == before


@pytest.mark.parametrize("form", ["json", "text"])
def test_access_log_holds_neither_usernames_nor_dates(form: str) -> None:
    with (
        Service(ACCESS_LOG="on", LOG_FORMAT=form).wait_until() as service,
        service.client() as client,
    ):
        assert client.put("Rumpelstilz", "1990-05-17").status == 204
        headers = {"X-Request-ID": "asked-for"}
        assert client.request("GET", "/hello/Rumpelstilz", headers=headers).status == 200
        assert client.put("Rumpelstilz", "1990-05-17 ").status == 400
        assert client.request("POST", "/hello/Rumpelstilz?born=1990-05-17").status == 405
        eventually(lambda: "POST 405" in service.log)
        assert len([line for line in service.log.splitlines() if "asked-for" in line]) == 1
        assert "Rumpelstilz" not in service.log
        assert "1990-" not in service.log


MALFORMED = {
    "path": head("GET /hello/Rumpelstilz\xe9"),
    "line": head("GET /hello/Rumpelstilz 1990-05-17"),
    "version": head("GET /hello/Rumpelstilz").replace(b"1.1", b"3.1"),
    "method": head("get /hello/Rumpelstilz"),
    "no line": b"Rumpelstilz 1990-05-17\r\n\r\n",
    "field": head("GET /", '{"dateOfBirth": "1990-05-17"}: 1'),
    "expectation": head("PUT /hello/Rumpelstilz", "Expect: 1990-05-17"),
    "lengths": head("PUT /hello/Rumpelstilz", LENGTH, LENGTH) + BIRTHDAY,
    "chunk": head("PUT /hello/Rumpelstilz", CHUNKED) + BIRTHDAY + b"\r\n",
    "unread chunk": head("PUT /nowhere/Rumpelstilz", CHUNKED) + BIRTHDAY + b"\r\n",
    "SCRIPT_NAME": head("GET /", "Script_Name: /hello/Rumpelstilz"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_log_of_a_malformed_request_quotes_nothing(service: Service, wire: Wire, case: str) -> None:
    before = service.log
    wire.send(MALFORMED[case])
    wire.answer()
    wire.end()
    # The log is written before the connection is closed.
    with suppress(ConnectionError):
        wire.read(1_000_000)
    written = service.log.removeprefix(before)
    assert "Rumpelstilz" not in written
    assert "1990-" not in written


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "hunter2"),
        ("DB_URI", "mysql://user:hunter2@host/database"),
        ("DB_URI", "postgresql://user:hunter2@host/database?colour=red"),
        ("TIMEZONE", "Hunter2/Nowhere"),
        ("BODY_TIMEOUT", "-1"),
        ("WEB_CONCURRENCY", "2"),  # with a database in memory, the default
    ],
)
def test_wrong_setting_stops_the_start(name: str, value: str) -> None:
    with Service(**{name: value}) as service:
        assert service.process.wait(20) == 2
        assert service.log.startswith(f"hello: {name}: ")
        assert service.log.count("\n") == 1
        assert "unter2" not in service.log


def test_wrong_setting_stops_plain_gunicorn() -> None:
    with Service(COMMANDS["gunicorn"], PORT="hunter2") as service:
        assert service.process.wait(20) == 2
        assert service.log == "hello: PORT: must be a whole number from 0 to 65535\n"


def test_wrong_setting_in_a_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "DB_URI").write_bytes(b"postgresql://user:hunter2\xff@host/database")
    with Service(SECRETS_DIR=str(tmp_path)) as service:
        assert service.process.wait(20) == 2
        assert service.log.startswith("hello: DB_URI: ")
        assert service.log.count("\n") == 1
        assert "hunter2" not in service.log


def test_options_go_to_gunicorn() -> None:
    command = [*COMMANDS["python -m hello serve"], "--access-logfile", "-"]
    with Service(command).wait_until("/health/live") as service:
        eventually(lambda: "GET 200" in service.log)
