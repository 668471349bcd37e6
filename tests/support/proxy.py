"""A TCP proxy that fails on command."""

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

PASS, REFUSE, BLACKHOLE, TRICKLE, LATE = "pass", "refuse", "blackhole", "trickle", "late"

#: Seconds between two bytes of an answer that trickles.
DRIP = 0.2


@dataclass(eq=False)
class _Pair:
    """A connection to the proxy, and the one from it. Bytes pass while `gate` is set."""

    client: socket.socket
    server: socket.socket
    gate: threading.Event
    #: Whether the client is reset as soon as it sends something, which is delivered later.
    late: bool = False
    #: Whether bytes of the client wait for the gate.
    kept: bool = False
    #: Whether they pass although the client's side was reset.
    half_reset: bool = False


class Proxy:
    """Forwards connections to 127.0.0.1:`upstream`.

    `mode` is PASS, REFUSE (new connections are reset), BLACKHOLE (bytes and new
    connections are swallowed; nothing ever answers), TRICKLE (answers come a byte at a
    time) or LATE (each connection that is open then is reset as soon as its client sends
    something, which arrives all the same, `lateness` seconds later; new connections pass). It may
    change at any time, and a
    connection that lived through a blackhole goes on after it. As in a real network, bytes
    that did not arrive are lost if their sender resets its connection, and only then.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        #: Connections that were made to it, in all.
        self.accepted = 0
        #: Seconds by which bytes come later, each way.
        self.delay = 0.0
        #: Seconds by which bytes come later whose connection was reset meanwhile.
        self.lateness = 1.0
        #: How often that happened.
        self.late = 0
        self._gate = _open_gate()
        self._mode = PASS
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = mode
        if mode == BLACKHOLE:
            self._gate.clear()
        else:
            self._gate.set()
        for pair in list(self._pairs):
            pair.late = mode == LATE

    def hold(self) -> threading.Event:
        """Swallow the bytes of the connections that are open, until the event is set.

        New connections pass: a path that was congested may be fine for them long before
        TCP sends again what it lost on the old ones.
        """
        held, self._gate = self._gate, _open_gate()
        held.clear()
        return held

    @property
    def keeps(self) -> bool:
        """Whether anything that a client has sent is held."""
        return any(pair.kept for pair in self._pairs)

    def reset_clients(self) -> None:
        """Reset the connections whose bytes are held, for the clients alone.

        The bytes are delivered when they are let go, and then the connection ends.
        """
        for pair in list(self._pairs):
            if pair.kept:
                pair.half_reset = True
                _reset(pair.client)

    def reset(self) -> None:
        """Reset every connection that is open."""
        for pair in list(self._pairs):
            self._pairs.discard(pair)
            _reset(pair.client)
            _reset(pair.server)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._gate.set()
        self.reset()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self._mode == REFUSE:
                _reset(client)
                continue
            threading.Thread(target=self._serve, args=(client, self._gate), daemon=True).start()

    def _serve(self, client: socket.socket, gate: threading.Event) -> None:
        gate.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._upstream))
        except OSError:
            _reset(client)
            return
        pair = _Pair(client, server, gate)
        self._pairs.add(pair)
        back = threading.Thread(target=self._copy, args=(pair, server, client), daemon=True)
        back.start()
        self._copy(pair, client, server)
        back.join()
        self._pairs.discard(pair)
        client.close()
        server.close()

    def _copy(self, pair: _Pair, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                pair.kept = source is pair.client and not pair.gate.is_set()
                pair.gate.wait()
                if not pair.half_reset and source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise ConnectionResetError
                if pair.late and source is pair.client:
                    self._deliver_late(pair, data)
                    return
                while data and self._mode == TRICKLE and source is pair.server:
                    target.sendall(data[:1])
                    data = data[1:]
                    time.sleep(DRIP)
                target.sendall(data)
                if source is pair.client:
                    pair.kept = False
            pair.gate.wait()
        except OSError:
            self._pairs.discard(pair)
            if pair.half_reset and source is pair.client:
                with contextlib.suppress(OSError):
                    target.shutdown(socket.SHUT_WR)
                return
            _reset(source)
            _reset(target)
            return
        if pair in self._pairs:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)

    def _deliver_late(self, pair: _Pair, data: bytes) -> None:
        # What happens to the proxy meanwhile does not touch what is under way.
        self._pairs.discard(pair)
        self.late += 1
        _reset(pair.client)
        time.sleep(self.lateness)
        with contextlib.suppress(OSError):
            pair.server.sendall(data)
            pair.server.shutdown(socket.SHUT_WR)


def _open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate


def _reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Wakes the thread that reads; the kernel closes no socket that is being read.
        sock.shutdown(socket.SHUT_RD)
    sock.close()
