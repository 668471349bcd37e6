"""One client's connection: plain requests the short way, others on gunicorn's own path.

Everything that a client sends or is sent passes here, so that every wait for the client has an
end, lets others have their turn however fast the bytes come, and can be ended to make room.
"""

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gevent
from gevent import get_hub, socket
from gunicorn import util
from gunicorn.http import errors

from hello.server import fallback, parser, response
from hello.server.room import Room
from hello.telemetry import metrics
from hello.telemetry.logs import Logger

#: Seconds between two looks of the worker at the deadlines of its connections.
TICK = 0.5

#: Seconds for which a client may go on sending after an answer that ends its connection.
LINGERING_CLOSE = 5.0
#: Seconds for which a worker that ends waits for a client: to go on sending in the same way, or to
#: send the first request of a new connection.
WAIT_WHILE_ENDING = 0.5

#: Bytes that are held for one connection, of a request that is not complete or is read on
#: gunicorn's path: a head, a body and trailers of 64 KiB each, and some more.
MAX_HELD = 256 * 1024

#: Errors that only say that the connection is over.
_OVER = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNABORTED)


@dataclass(frozen=True, slots=True)
class Context:
    """What the connections of a worker have in common. Timeouts are in seconds."""

    #: The WSGI application.
    app: Any
    #: gunicorn's configuration.
    cfg: Any
    log: Logger
    room: "Room[Connection]"
    #: For the first request of a connection, and for each head from its first byte on.
    head_timeout: float
    #: For a body, and for the client to read an answer.
    body_timeout: float
    #: For a request after the first.
    keepalive: float
    #: Whether the worker is to end, and every answer to close its connection.
    is_ending: Callable[[], bool]
    #: Called for every request that is answered the short way; gunicorn's path counts its own.
    count_request: Callable[[], None]
    #: Answers on gunicorn's own path: called with the server's address, the request, the client's
    #: socket and its address.
    handle_request: Callable[[Any, Any, Any, Any], object]
    #: The answer, for a client's address, to what is no HTTP, or to a defect.
    refuse: Callable[[Any, Exception], bytes]
    #: What parses the heads of a connection, for its socket and the addresses of both ends; None
    #: if every request is to take gunicorn's path.
    head_parser: Callable[[Any, Any, Any], parser.HeadParser | None]


class Connection:
    """Serves one connection in the greenlet that calls `serve`.

    One watcher for incoming bytes lives as long as the connection. Starting and stopping
    one for every request, as gevent's sockets do, costs a system call and more each time.

    The worker calls `expire` once `deadline` (time.monotonic()) has passed, `drain` when it
    ends, and `give_way` when others need the room. All are called in the hub.
    """

    def __init__(self, context: Context, client: Any, peer: Any, server: Any) -> None:
        self._context = context
        self._client = client
        # Read and written as a file that does not block: the methods of gevent's sockets cost each
        # request 3 µs more. The number is good until `serve` ends: gunicorn's path may have closed
        # the socket before, and then `_drop_incoming` fails before it reads.
        self._file = client.fileno()
        self._peer = peer
        self._server = server
        self._head_parser = context.head_parser(client, peer, server)
        #: gunicorn's parser, made for the first request that is not plain.
        self._requests: fallback.RequestParser | None = None
        #: Whether to close with care for what the client may still be sending.
        self._linger = False

        self._greenlet = gevent.getcurrent()
        self._hub = get_hub()
        self._watcher = self._hub.loop.io(self._file, 1)
        self._watching = False
        self._waiting = False
        self._sending = False
        self._idle = False
        self._gives_way = False
        self.deadline = float("inf")
        #: Whether a request has been answered.
        self.answered = False
        #: When it was accepted, or began to wait for a request, for the rest of one, or for its
        #: client to read (time.monotonic()).
        self.waits_since = time.monotonic()
        #: Bytes of a request that is not complete yet, and of an answer that is not sent yet.
        self.held = 0

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing happens because the client does not send, or does not read."""
        return self._waiting or self._sending

    def serve(self) -> None:
        """Answer requests until the connection ends."""
        try:
            # It bounds sending; receiving has deadlines of its own.
            self._client.settimeout(self._context.body_timeout)
            self._serve()
        except (StopIteration, TimeoutError, errors.NoMoreData):
            pass
        except OSError as ex:
            if ex.errno not in _OVER:
                self._context.log.exception("socket error")
        except Exception as ex:
            self._linger = True
            with suppress(OSError):
                self.send(self._context.refuse(self._peer, ex))
        finally:
            if self._linger:
                self._drop_incoming()
            self._release()
            self._watcher.stop()
            self._watcher.close()
            util.close(self._client)

    def expire(self) -> None:
        """End a wait that takes too long."""
        if self._waiting and self.deadline < time.monotonic():
            self._wake(False)

    def drain(self) -> None:
        """End the wait for the first byte of a request."""
        if self._waiting and self._idle:
            self._wake(False)

    def give_way(self) -> None:
        """End the connection if it waits for its client."""
        if self.waits_for_client:
            self._gives_way = True
            if self._waiting:
                self._wake(False)
            else:
                self._greenlet.throw(_given_way())

    def receive(self, deadline: float, *, idle: bool = False) -> bytes:
        """Wait for bytes and return them; none if the client has sent all.

        `idle` is the wait for the first byte of a request. Raises TimeoutError once
        `deadline` (time.monotonic()) has passed, ConnectionAbortedError to make room.
        """
        # A client that sends fast never lets `expire` find a wait.
        if not idle and time.monotonic() >= deadline:
            raise TimeoutError
        if self._gives_way:
            raise _given_way()
        self.deadline = deadline
        self._idle = idle
        if not self._watching:
            self._watcher.start(self._readable)
            self._watching = True
        self._waiting = True
        try:
            readable = self._hub.switch()
        finally:
            self._waiting = False
        if self._gives_way and not idle:
            raise _given_way()
        try:
            # Also after a time-out: something may have come at that very moment.
            data = os.read(self._file, 8192)
        except BlockingIOError:
            if not readable:
                raise TimeoutError from None
            return self.receive(deadline, idle=idle)
        if idle:
            self._gives_way = False  # a request has just begun, and is served
        else:
            self._hold(len(data))
            if self.held > MAX_HELD:
                self._gives_way = True
                raise _given_way()
        return data

    def send(self, data: bytes) -> None:
        """Send all of it; raises TimeoutError if the client does not read it in BODY_TIMEOUT."""
        if self._gives_way:
            raise _given_way()
        try:
            sent = os.write(self._file, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.waits_since = time.monotonic()
            self._hold(len(data) - sent)
            self._sending = True
            try:
                self._client.sendall(data[sent:])
            finally:
                self._sending = False

    def _serve(self) -> None:
        context = self._context
        rest: bytes | None = b""
        while rest is not None:
            if self.held:
                self._release()
            if rest:
                gevent.sleep(0)  # pipelined: let others have their turn
                buffer = rest
            else:
                self.waits_since = now = time.monotonic()
                if context.is_ending():
                    seconds = WAIT_WHILE_ENDING
                else:
                    seconds = context.keepalive if self.answered else context.head_timeout
                buffer = self.receive(now + seconds, idle=True)
                if not buffer:
                    return
            end = buffer.find(b"\r\n\r\n") + 4
            if end < 4:
                buffer, end = self._receive_head(buffer)
                if not end:
                    return
            if self._head_parser is None:
                rest = self._answer_unusual(buffer)
            else:
                rest = self._answer(self._head_parser, buffer, end)
            self.answered = True

    def _receive_head(self, begun: bytes) -> tuple[bytes, int]:
        """Go on until there is a whole head; return all that came, and where the head ends.

        It ends at 0 if the client has sent all. Raises TimeoutError, and gunicorn's errors
        for what can be no head, or none that is read.
        """
        self._hold(len(begun))
        self.waits_since = time.monotonic()
        deadline = self.waits_since + self._context.head_timeout
        limit = self._context.cfg.limit_request_line
        head = bytearray(begun)
        seen = 0
        while True:
            end = head.find(b"\r\n\r\n", max(0, seen - 3)) + 4
            if end >= 4:
                return bytes(head), end
            # Every line ends with CRLF (RFC 9112, section 2.2): this would never be whole.
            start = seen - (head[seen - 1 : seen] == b"\r")
            if head.count(b"\n", start) > head.count(b"\r\n", start):
                in_line = head.find(b"\n") != head.find(b"\r\n") + 1
                raise (errors.InvalidRequestLine if in_line else errors.InvalidHeader)("bare LF")
            seen = len(head)
            if 0 < limit < seen - 2 and head.find(b"\r\n", 0, limit + 2) < 0:
                raise errors.LimitRequestLine(seen, limit)
            if seen > fallback.MAX_HEAD:
                raise errors.LimitRequestHeaders("the head is too long")
            more = self.receive(deadline)
            if not more:
                return b"", 0
            head += more

    def _answer(self, head_parser: parser.HeadParser, buffer: bytes, end: int) -> bytes | None:
        """Answer the request whose head ends at `end` of `buffer`; see `_answer_unusual`."""
        context = self._context
        environ = head_parser.parse(buffer[:end]) if end <= head_parser.max_head else None
        length = None if environ is None else parser.body_length(environ)
        if environ is None or length is None:
            return self._answer_unusual(buffer)

        if len(buffer) < end + length:
            deadline = time.monotonic() + context.body_timeout
            buffer = self._receive_body(buffer, end + length, deadline)
            if len(buffer) < end + length:  # the application is to say what is wrong
                return self._answer_unusual(buffer, body_deadline=deadline)

        context.count_request()
        start = time.monotonic()
        body = buffer[end : end + length]
        data, answer = response.run(context.app, environ, body, context.is_ending)
        self.send(data)
        seconds = time.monotonic() - start
        metrics.answered(environ, answer.status, seconds)
        if context.log.access_log_enabled:
            context.log.answered(environ, answer.status, answer.sent, seconds)
        rest = buffer[end + length :]
        if answer.close:
            self._linger = bool(rest)
            return None
        return rest

    def _receive_body(self, buffer: bytes, end: int, deadline: float) -> bytes:
        """Go on until `buffer` reaches to `end`, the client has sent all, or it is too late."""
        self._hold(len(buffer))
        self.waits_since = time.monotonic()
        with suppress(TimeoutError):
            while len(buffer) < end and (more := self.receive(deadline)):
                buffer += more
        return buffer

    def _answer_unusual(self, buffer: bytes, *, body_deadline: float = 0.0) -> bytes | None:
        """Answer the request that `buffer` begins with, its head whole, on gunicorn's path.

        `body_deadline` (time.monotonic()) is the one that runs already, 0 if none does.
        Returns what follows it, None at the end of the connection. Raises StopIteration at
        its end too, and what gunicorn raises.
        """
        context = self._context
        if self._requests is None:
            self._requests = fallback.RequestParser(context.cfg, self, self._peer)
        requests = self._requests
        requests.unreader.unread(buffer)
        self._linger = True
        self.waits_since = now = time.monotonic()
        if not self.held:
            self._hold(len(buffer))
        requests.unreader.deadline = now + context.head_timeout
        request = next(requests)
        request.proxy_protocol_info = {}
        requests.unreader.deadline = body_deadline or now + context.body_timeout
        try:
            context.handle_request(self._server, request, self._client, self._peer)
        finally:
            self._linger = fallback.unread(request.body) > 0
        # The answer may have said that the connection is kept: the rest of the body gets a time
        # of its own.
        requests.unreader.deadline = time.monotonic() + fallback.DROP_SECONDS
        if not requests.finish_body(requests.unreader.deadline, fallback.DROP_BYTES):
            return None
        self._linger = False
        rest: bytes = requests.unreader.take_buffered()
        return rest

    def _drop_incoming(self) -> None:
        """Say that the answer is over, and read what the client goes on to send.

        Closing with unread data would reset the connection, and the client might lose the
        answer that tells it to stop (RFC 9112, section 9.6).
        """
        seconds = WAIT_WHILE_ENDING if self._context.is_ending() else LINGERING_CLOSE
        deadline = time.monotonic() + seconds
        self._release()
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
            while self.receive(deadline):
                self._release()

    def _hold(self, size: int) -> None:
        self.held += size
        if not self._context.room.hold(size):
            self._gives_way = True
            raise _given_way()

    def _release(self) -> None:
        self._context.room.hold(-self.held)
        self.held = 0

    def _readable(self) -> None:
        """Called in the hub when bytes have come."""
        if self._waiting:
            self._wake(True)
        else:
            # More came before the last request was answered. `receive` starts the watcher again.
            self._watcher.stop()
            self._watching = False

    def _wake(self, readable: bool) -> None:
        self._waiting = False
        self._greenlet.switch(readable)


def _given_way() -> ConnectionAbortedError:
    return ConnectionAbortedError(errno.ECONNABORTED, "closed to make room for others")
