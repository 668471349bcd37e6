"""A TCP proxy that fails on command."""

import contextlib
import socket
import struct
import threading

PASS, REFUSE, BLACKHOLE = "pass", "refuse", "blackhole"


class Proxy:
    """Forwards connections to 127.0.0.1:`upstream`.

    `mode` is PASS, REFUSE (new connections are reset) or BLACKHOLE (bytes and new
    connections are swallowed; nothing ever answers). It may change at any time, and a
    connection that lived through a blackhole goes on after it.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._open = threading.Event()
        self._open.set()
        self._mode = PASS
        self._pairs: set[tuple[socket.socket, socket.socket | None]] = set()
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
            self._open.clear()
        else:
            self._open.set()

    def reset(self) -> None:
        """Reset every connection that is open."""
        for pair in list(self._pairs):
            for sock in pair:
                _reset(sock)

    def close(self) -> None:
        self._listener.close()
        self._open.set()
        self.reset()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._mode == REFUSE:
                _reset(client)
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._open.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._upstream))
        except OSError:
            _reset(client)
            return
        pair = (client, server)
        self._pairs.add(pair)
        back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
        back.start()
        self._copy(client, server)
        back.join()
        self._pairs.discard(pair)
        for sock in pair:
            sock.close()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _reset(sock: socket.socket | None) -> None:
    """Close with RST instead of FIN."""
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
