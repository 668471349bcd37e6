"""`hello healthcheck`: whether the service on this host is ready, for the image's HEALTHCHECK.

It runs every few seconds beside the service, and so it imports next to nothing: an HTTP client
alone would take longer than the question does.
"""

import os
import socket
import sys

from hello.environment import DEFAULT_HOST, DEFAULT_PORT, Source, integer, listen_on

#: Seconds for connecting, and for each part of the answer.
TIMEOUT = 2.0

#: Exit codes, beside MISCONFIGURED.
READY, NOT_READY = 0, 1

_REQUEST = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_STATUS_LINE = len(b"HTTP/1.1 200")
#: Where a service that listens everywhere is asked.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> int:
    """Ask; say what is wrong, if something is; return the exit code. Raises SettingsError."""
    source = Source(os.environ)
    host = source.parse("HOST", listen_on) or DEFAULT_HOST
    port = source.parse("PORT", integer(1, 65535)) or DEFAULT_PORT
    try:
        status = _ask(_LOOPBACK.get(host, host), port)
    except OSError as ex:
        reason = ex.strerror or type(ex).__name__
        print(f"hello: no answer on port {port}: {reason}", file=sys.stderr)
        return NOT_READY
    if status != b"HTTP/1.1 200":
        print(f"hello: not ready: {status.decode('ascii', 'replace')}", file=sys.stderr)
        return NOT_READY
    return READY


def _ask(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), TIMEOUT) as connection:
        connection.sendall(_REQUEST)
        head = b""
        while len(head) < _STATUS_LINE and (part := connection.recv(_STATUS_LINE - len(head))):
            head += part
        return head
