"""The same bytes to two servers, and what each makes of them."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.service import Service, Wire

#: In place of bytes to send: nothing more will be sent.
END = None

#: In a problem document.
_REQUEST_ID = re.compile(rb', "request_id": "[0-9a-f]+"')

_ROOT = Path(__file__).parents[2]


class Said(NamedTuple):
    """One answer: `fields` are sorted, without the date and the request's id, as is `body`."""

    status: str
    fields: tuple[str, ...]
    body: bytes


class Transcript(NamedTuple):
    """What a server said on a connection, until it closed."""

    answers: tuple[Said, ...]
    #: What was no whole answer.
    rest: bytes = b""

    @property
    def statuses(self) -> list[int]:
        return [int(said.status.split()[1]) for said in self.answers]


class Pair(NamedTuple):
    """The worker of the service, and the one that goes gunicorn's way alone."""

    lean: Service
    stock: Service

    def converse(self, *steps: bytes | None) -> tuple[Transcript, ...]:
        return tuple(converse(service, *steps) for service in self)


@contextmanager
def pair(*options: str, **settings: str) -> Iterator[Pair]:
    """Both, with the probe for an application and the same options of gunicorn's."""

    command = [
        *(sys.executable, "-m", "gunicorn", "-c", "python:hello.server"),
        *("--pythonpath", str(_ROOT), *options),
        "tests.support.probe:application",
    ]
    with (
        Service(command, **settings) as lean,
        Service(command, HTTP_SHORT_WAY="off", **settings) as stock,
    ):
        yield Pair(lean.wait_until("/"), stock.wait_until("/"))


def converse(service: Service, *steps: bytes | None) -> Transcript:
    """Send, and read until the server closes.

    Between two steps the server gets the time to read what was sent.
    """
    with service.wire() as wire:
        for number, step in enumerate(steps):
            with suppress(OSError):  # the server has closed
                if step is END:
                    wire.end()
                    continue
                wire.send(step)
                if number + 1 < len(steps) and steps[number + 1] is not END:
                    _let_read(service)
        rest = _read_all(wire)
    answers: list[Said] = []
    while rest:
        said, after = _parse(rest)
        if said is None:
            break
        answers.append(said)
        rest = after
    return Transcript(tuple(answers), rest)


def _let_read(service: Service) -> None:
    # While this is answered, what was sent before is read.
    with service.client() as client:
        client.request("GET", "/unread")


def _read_all(wire: Wire) -> bytes:
    parts = []
    # A server that closes while more is on its way resets the connection: when that
    # happens is a matter of time, and not of what was sent.
    with suppress(ConnectionResetError):
        while part := wire.socket.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def _parse(data: bytes) -> tuple[Said | None, bytes]:
    """The first answer in `data`, with its body however it is framed, and what follows."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None, data
    status, *fields = head.decode("latin-1").split("\r\n")
    values = {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}
    body = b""
    number = status.split()[1]
    if values.get("x-method") == "HEAD" or number in ("204", "304") or number[0] == "1":
        pass
    elif values.get("transfer-encoding") == "chunked":
        while True:
            line, end, rest = rest.partition(b"\r\n")
            if not end:
                return None, data
            size = int(line, 16)
            body, rest = body + rest[:size], rest[size + 2 :]
            if not size:
                break
    else:
        size = int(values["content-length"])
        if len(rest) < size:
            return None, data
        body, rest = rest[:size], rest[size:]
    # Case means nothing, nor does the order of different fields (RFC 9110, section 5).
    kept = sorted(
        f"{name.lower()}: {value}"
        for name, _, value in (field.partition(": ") for field in fields)
        if name.lower() not in ("date", "x-request-id")
    )
    return Said(status, tuple(kept), _REQUEST_ID.sub(b"", body)), rest
