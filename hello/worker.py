"""gunicorn's gevent worker, with deadlines for slow clients and a drain that loses nothing.

What differs from `gunicorn.workers.ggevent`:

- Idle time, a request's head and a request's body each have a deadline of their own.
  gunicorn has one for idle time and head together, and none for the body.
- On SIGTERM the worker goes on accepting for a moment, so that connections which the
  kernel has completed are served; every answer then closes its connection; idle
  connections are closed; the worker ends with the last answer. gunicorn waits for idle
  connections until `graceful_timeout`.
- Head and body of an answer leave in one send.
- An application's `Connection: close` is obeyed. gunicorn ignores it.
"""

import errno
import re
import time
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import errors, message, parser, wsgi
from gunicorn.http.body import LengthReader
from gunicorn.workers.ggevent import GeventWorker

from hello.lifecycle import process
from hello.settings import Settings

#: Seconds for which a draining worker still accepts, and answers on connections that
#: are idle: requests that were on their way when SIGTERM came.
LINGER = 0.5

#: How much of an unread body is read and dropped to keep a connection: bytes, seconds.
DROP_BYTES, DROP_SECONDS = 64 * 1024, 1.0

_NOT_ASCII = re.compile(rb"[\x80-\xff]")


class _Drained(Exception):
    """The worker stops while a connection waits for its next request."""


class Request(message.Request):  # type: ignore[misc]
    """A request whose target may hold raw UTF-8.

    RFC 9112 wants it percent-encoded, and gunicorn answers 400; curl sends it raw.
    """

    def parse_request_line(self, line_bytes: bytes) -> None:
        if not line_bytes.isascii():
            line_bytes = _NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], line_bytes)
        super().parse_request_line(line_bytes)


class RequestParser(parser.RequestParser):  # type: ignore[misc]
    mesg_class = Request


class Response(wsgi.Response):  # type: ignore[misc]
    """A response that sends its head together with the first part of its body."""

    _head = b""
    headers_sent: bool

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        super().process_headers(headers)
        if any(name.lower() == "connection" and value == "close" for name, value in headers):
            self.force_close()

    def send_headers(self) -> None:
        if not self.headers_sent:
            lines = [*self.default_headers(), *(f"{k}: {v}\r\n" for k, v in self.headers), "\r\n"]
            self._head = "".join(lines).encode("latin-1")
            self.headers_sent = True

    def can_sendfile(self) -> bool:
        return False  # it would bypass the head that is held back

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%s\r\n" % (len(data), data)
        head, self._head = self._head, b""
        util.write(self.sock, head + data)

    def close(self) -> None:
        self.send_headers()
        end = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        self._head = b""
        if end:
            util.write(self.sock, end)


class TimedBody:
    """A request body (`wsgi.input`) that raises TimeoutError after `seconds` in all."""

    def __init__(self, body: Any, seconds: float) -> None:
        self._body = body
        self._deadline = time.monotonic() + seconds

    def _timeout(self) -> gevent.Timeout:
        # A timeout of 0 would switch it off.
        return gevent.Timeout(max(0.001, self._deadline - time.monotonic()), TimeoutError)

    def read(self, size: int | None = None) -> bytes:
        with self._timeout():
            data: bytes = self._body.read(size)
            return data

    def readline(self, size: int | None = None) -> bytes:
        with self._timeout():
            data: bytes = self._body.readline(size)
            return data

    def readlines(self, size: int | None = None) -> list[bytes]:
        with self._timeout():
            lines: list[bytes] = self._body.readlines(size)
            return lines

    def __iter__(self) -> "TimedBody":
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    @property
    def failed(self) -> bool:
        """For gunicorn's parser: the end of the body was not found."""
        return bool(self._body.failed)


class Worker(GeventWorker):  # type: ignore[misc]
    def init_process(self) -> None:
        if not monkey.is_module_patched("socket"):
            raise RuntimeError("start gunicorn with -c python:hello.server, which patches first")
        wsgi.Response = Response
        settings = Settings.load()
        self._head_timeout = settings.head_timeout
        self._body_timeout = settings.body_timeout
        self._stopping = Event()
        self._idle: set[gevent.Greenlet] = set()
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._stopping.set()

    def run(self) -> None:
        pool = Pool(self.worker_connections)
        servers = [self._listen(sock, pool) for sock in self.sockets]
        while self.alive:
            self.notify()
            self._stopping.wait(1.0)

        process.draining = True
        gevent.sleep(LINGER)
        for server in servers:
            server.close()
        for greenlet in list(self._idle):
            greenlet.kill(_Drained, block=False)
        end = time.monotonic() + self.cfg.graceful_timeout
        while len(pool) and time.monotonic() < end:
            self.notify()
            pool.join(timeout=1.0)
        if len(pool):
            self.log.warning("%d requests were not answered in time", len(pool))
            pool.kill(timeout=1.0)

    def _listen(self, sock: Any, pool: Pool) -> StreamServer:
        sock.setblocking(1)
        server = StreamServer(
            sock, handle=lambda client, addr: self.handle(sock, client, addr), spawn=pool
        )
        if self.cfg.workers > 1:
            server.max_accept = 1  # leave the others some
        server.start()
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        request = None
        graceful = False
        try:
            requests = RequestParser(self.cfg, client, addr)
            name = listener.getsockname()
            while self._await_request(client, requests.unreader):
                request = None
                with gevent.Timeout(self._head_timeout, False):
                    request = next(requests)
                if request is None:
                    break
                request.proxy_protocol_info = request.proxy_protocol_info or {}
                self._time_body(request)
                graceful = True
                self.handle_request(name, request, client, addr)
                if not requests.finish_body(time.monotonic() + DROP_SECONDS, DROP_BYTES):
                    break
                graceful = False
        except (StopIteration, errors.NoMoreData):
            pass
        except OSError as ex:
            if ex.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self.log.exception("socket error")
        except Exception as ex:
            graceful = True
            self.handle_error(request, client, addr, ex)
        finally:
            if graceful:
                # Closing with unread data would reset the connection, and the client
                # might lose the answer that tells it to stop sending.
                util.close_graceful(client)
            else:
                util.close(client)

    def _await_request(self, client: Any, unreader: Any) -> bool:
        """Wait for the first bytes of a request; false if none will come."""
        if unreader.buf.tell():
            return True  # pipelined behind the last one
        greenlet = gevent.getcurrent()
        client.settimeout(self.cfg.keepalive)
        self._idle.add(greenlet)
        try:
            data = client.recv(8192)
        except TimeoutError:
            return False
        except _Drained:
            # Perhaps the request has arrived at this very moment.
            client.settimeout(0)
            try:
                data = client.recv(8192)
            except BlockingIOError:
                return False
        finally:
            self._idle.discard(greenlet)
        client.settimeout(None)
        unreader.unread(data)
        return bool(data)

    def _time_body(self, request: Any) -> None:
        reader = request.body.reader
        if not (isinstance(reader, LengthReader) and reader.length == 0):
            request.body = TimedBody(request.body, self._body_timeout)
