"""Where the workers of a service show their figures to each other.

A piece of memory that the master makes and every worker inherits, with a slot for each
worker. A worker alone writes its slot; all read all. There is no lock and no file: a worker
may be killed at any moment, also while it writes, and what it wrote last remains. The next
worker in that slot goes on from there, so that no figure goes back.
"""

import mmap
import struct
import zlib

import msgspec

from hello.telemetry.metric_types import Snapshot

#: In bytes, for the figures of one worker: some hundred rows, of which a histogram's has 140.
SIZE = 128 * 1024

#: Of a slot: whether its worker lives, and which of its two pages holds.
_FLAGS = struct.Struct("BB")
_PAGES_AT = 8
#: Of a page: the length of what follows, and its checksum.
_PAGE = struct.Struct("II")
_STRIDE = _PAGES_AT + 2 * (_PAGE.size + SIZE)

_decode = msgspec.msgpack.Decoder(Snapshot).decode


class Board:
    """Made in the master before the first fork; pages are not used until they are written."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, slots * _STRIDE)
        #: Known to the master alone.
        self._taken: set[int] = set()

    def reserve(self) -> int | None:
        """A slot for a new worker; None if all are taken. For the master."""
        for slot in range(self._slots):
            if slot not in self._taken:
                self._taken.add(slot)
                return slot
        return None

    def release(self, slot: int) -> None:
        """The worker of a slot is gone. For the master."""
        self._taken.discard(slot)
        _, page = _FLAGS.unpack_from(self._memory, slot * _STRIDE)
        _FLAGS.pack_into(self._memory, slot * _STRIDE, 0, page)

    def write(self, slot: int, figures: Snapshot) -> None:
        """Show the figures of a worker. For that worker. Raises ValueError if they are too many."""
        data = msgspec.msgpack.encode(figures)
        if len(data) > SIZE:
            raise ValueError(f"{len(data)} bytes of figures do not fit")
        start = slot * _STRIDE
        page = 1 - _FLAGS.unpack_from(self._memory, start)[1]
        at = start + _PAGES_AT + page * (_PAGE.size + SIZE)
        _PAGE.pack_into(self._memory, at, len(data), zlib.crc32(data))
        self._memory[at + _PAGE.size : at + _PAGE.size + len(data)] = data
        # Now it is whole.
        _FLAGS.pack_into(self._memory, start, 1, page)

    def read(self, slot: int) -> tuple[bool, Snapshot]:
        """Whether the worker of a slot lives, and the figures that were written last."""
        start = slot * _STRIDE
        for _ in range(100):
            alive, page = _FLAGS.unpack_from(self._memory, start)
            at = start + _PAGES_AT + page * (_PAGE.size + SIZE)
            length, checksum = _PAGE.unpack_from(self._memory, at)
            if not length:
                break
            data = self._memory[at + _PAGE.size : at + _PAGE.size + min(length, SIZE)]
            if zlib.crc32(data) == checksum:
                return bool(alive), _decode(data)
            # It was written twice meanwhile: look again.
        return False, {}

    def read_all(self) -> list[tuple[bool, Snapshot]]:
        return [self.read(slot) for slot in range(self._slots)]
