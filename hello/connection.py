"""One client's connection: plain requests the short way, others on gunicorn's own path."""

import errno
import time
from contextlib import suppress
from typing import Any

import gevent
from gevent import get_hub, socket
from gunicorn import util
from gunicorn.http import errors

from hello import lean, stock, telemetry

#: Seconds for which a client may go on sending after an answer that ends its connection.
LINGER = 5.0
#: Seconds for which a draining worker waits for the first request of a new connection.
DRAINING_PATIENCE = 0.5


class Connection:
    """Serves one connection in the greenlet that calls `serve`.

    One watcher for incoming bytes lives as long as the connection. Starting and stopping
    one for every request, as gevent's sockets do, costs a system call and more each time.

    The worker calls `expire` once `deadline` (time.monotonic()) has passed, and `drain`
    when it stops. Both are called in the hub.
    """

    def __init__(self, worker: Any, client: Any, peer: Any, server: Any) -> None:
        self._worker = worker
        self._client = client
        self._peer = peer
        self._server = server
        #: None if every request takes gunicorn's path.
        self._template = worker.template(client, peer, server)
        #: gunicorn's parser, made for the first request that is not plain.
        self._requests: stock.RequestParser | None = None
        #: Whether to close with care for what the client may still be sending.
        self._linger = False

        self._greenlet = gevent.getcurrent()
        self._hub = get_hub()
        self._watcher = self._hub.loop.io(client.fileno(), 1)
        self._watching = False
        self._waiting = False
        self._idle = False
        self.deadline = float("inf")

    def serve(self) -> None:
        """Answer requests until the connection ends."""
        try:
            # For sending, and for reading on gunicorn's path.
            self._client.settimeout(self._worker.body_timeout)
            self._serve()
        except (StopIteration, TimeoutError, errors.NoMoreData):
            pass
        except OSError as ex:
            if ex.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self._worker.log.exception("socket error")
        except Exception as ex:
            self._linger = True
            self._worker.handle_error(None, self._client, self._peer, ex)
        finally:
            self._watcher.stop()
            self._watcher.close()
            if self._linger:
                self._drop_incoming()
            util.close(self._client)

    def expire(self) -> None:
        """End a wait that takes too long."""
        if self._waiting and self.deadline < time.monotonic():
            self._wake(False)

    def drain(self) -> None:
        """End the wait for the first byte of a request."""
        if self._waiting and self._idle:
            self._wake(False)

    def _serve(self) -> None:
        rest: bytes | None = b""
        while rest is not None:
            alive = self._worker.alive
            patience = self._worker.keepalive if alive else DRAINING_PATIENCE
            buffer = rest or self._receive(patience, idle=True)
            if not buffer:
                return
            if self._template is None:
                rest = self._answer_unusual(buffer)
            else:
                rest = self._answer(self._template, buffer)
            if rest:
                gevent.sleep(0)  # pipelined: let others have their turn

    def _answer(self, template: lean.Template, buffer: bytes) -> bytes | None:
        """Answer the request that `buffer` begins with; see `_answer_unusual`."""
        worker = self._worker
        if (end := buffer.find(b"\r\n\r\n")) < 0:
            deadline = time.monotonic() + worker.head_timeout
            while (end := buffer.find(b"\r\n\r\n")) < 0:
                if len(buffer) > template.max_head or buffer.count(b"\n") > buffer.count(b"\r\n"):
                    return self._answer_unusual(buffer, head_deadline=deadline)
                more = self._receive(deadline - time.monotonic())
                if not more:
                    return None
                buffer += more
        end += 4
        environ = template.environ(buffer[:end]) if end <= template.max_head else None
        length = None if environ is None else lean.body_length(environ)
        if environ is None or length is None:
            return self._answer_unusual(buffer)

        if len(buffer) < end + length:
            deadline = time.monotonic() + worker.body_timeout
            while len(buffer) < end + length:
                more = self._receive(deadline - time.monotonic())
                if not more:  # the application is to say what is wrong
                    return self._answer_unusual(buffer, body_deadline=deadline)
                buffer += more

        worker.count_request()
        start = time.monotonic()
        body = buffer[end : end + length]
        data, answer = lean.run(worker.wsgi, environ, body, lambda: not worker.alive)
        sent = self._client.send(data)
        if sent < len(data):
            self._client.sendall(data[sent:])
        seconds = time.monotonic() - start
        telemetry.answered(environ, answer.status, seconds)
        if worker.log.access_log_enabled:
            worker.log.answered(environ, answer.status, answer.sent, seconds)
        rest = buffer[end + length :]
        if answer.close:
            self._linger = bool(rest)
            return None
        return rest

    def _answer_unusual(
        self, buffer: bytes, *, head_deadline: float = 0.0, body_deadline: float = 0.0
    ) -> bytes | None:
        """Answer the request that `buffer` begins with on gunicorn's path.

        The deadlines (time.monotonic()) are those that run already, 0 if none does.
        Returns what follows it, None at the end of the connection. Raises StopIteration at
        its end too, and what gunicorn raises.
        """
        worker = self._worker
        if self._requests is None:
            self._requests = stock.RequestParser(worker.cfg, self._client, self._peer)
        requests = self._requests
        requests.unreader.unread(buffer)
        request = None
        self._linger = True
        head_deadline = head_deadline or time.monotonic() + worker.head_timeout
        # A timeout of 0 would switch it off.
        with gevent.Timeout(max(0.001, head_deadline - time.monotonic()), False):
            request = next(requests)
        if request is None:
            self._linger = False
            return None
        request.proxy_protocol_info = {}
        stock.time_body(request, body_deadline or time.monotonic() + worker.body_timeout)
        try:
            worker.handle_request(self._server, request, self._client, self._peer)
        finally:
            self._linger = stock.unread(request.body) > 0
        # The answer may have said that the connection is kept: the rest gets a time of its own.
        request.body = getattr(request.body, "untimed", request.body)
        if not requests.finish_body(time.monotonic() + stock.DROP_SECONDS, stock.DROP_BYTES):
            return None
        self._linger = False
        rest: bytes = requests.unreader.take_buffered()
        return rest

    def _drop_incoming(self) -> None:
        """Say that the answer is over, and read what the client goes on to send.

        Closing with unread data would reset the connection, and the client might lose the
        answer that tells it to stop (RFC 9112, section 9.6).
        """
        seconds = LINGER if self._worker.alive else DRAINING_PATIENCE
        with suppress(OSError), gevent.Timeout(seconds, False):
            self._client.shutdown(socket.SHUT_WR)
            while self._client.recv(65536):
                pass

    def _receive(self, seconds: float, *, idle: bool = False) -> bytes:
        """Wait for bytes and return them; none at their end, or when the wait must end."""
        self.deadline = time.monotonic() + seconds
        self._idle = idle
        if not self._watching:
            self._watcher.start(self._readable)
            self._watching = True
        self._waiting = True
        try:
            readable = self._hub.switch()
        finally:
            self._waiting = False
        if readable:
            return bytes(self._client.recv(8192))
        # Perhaps some came at this very moment.
        self._client.settimeout(0)
        try:
            with suppress(BlockingIOError):
                return bytes(self._client.recv(8192))
            return b""
        finally:
            self._client.settimeout(self._worker.body_timeout)

    def _readable(self) -> None:
        """Called in the hub when bytes have come."""
        if self._waiting:
            self._wake(True)
        else:
            # More came before the last was answered. Look again when it is wanted.
            self._watcher.stop()
            self._watching = False

    def _wake(self, readable: bool) -> None:
        self._waiting = False
        self._greenlet.switch(readable)
