"""The memory in which the workers of a service show their figures to each other.

The master makes the memory and every worker inherits it; each worker has a slot, which it alone
writes and all workers read. There is no lock and no file: a worker
may be killed at any moment, also while it writes, and what it wrote last remains. The next
worker in that slot goes on from those figures, so that no counter goes back.
"""

import mmap
import struct
import zlib

import msgspec

from hello.telemetry.metric_types import Snapshot

#: Bytes for the figures of one worker: some hundred rows, of which a histogram's takes 140 bytes.
SIZE = 128 * 1024

#: The head of a slot: whether its worker lives, and which of its two pages is valid.
_FLAGS = struct.Struct("BB")
_PAGES_AT = 8
#: The head of a page: the length of the figures after it, and their checksum.
_PAGE = struct.Struct("II")
_STRIDE = _PAGES_AT + 2 * (_PAGE.size + SIZE)

_decode = msgspec.msgpack.Decoder(Snapshot).decode


class Board:
    """The slots of all workers. For the master, before the first fork."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, slots * _STRIDE)
        #: The slots in use, which the master alone knows.
        self._taken: set[int] = set()

    def reserve(self) -> int | None:
        """A slot for a new worker; None if all are taken. For the master."""
        for slot in range(self._slots):
            if slot not in self._taken:
                self._taken.add(slot)
                return slot
        return None

    def release(self, slot: int) -> None:
        """Free the slot of a worker that is gone. For the master."""
        self._taken.discard(slot)
        _, page = _FLAGS.unpack_from(self._memory, slot * _STRIDE)
        _FLAGS.pack_into(self._memory, slot * _STRIDE, 0, page)

    def write(self, slot: int, figures: Snapshot) -> None:
        """Write the figures of a worker. For that worker. Raises ValueError if they do not fit."""
        data = msgspec.msgpack.encode(figures)
        if len(data) > SIZE:
            raise ValueError(f"{len(data)} bytes of figures do not fit")
        start = slot * _STRIDE
        page = 1 - _FLAGS.unpack_from(self._memory, start)[1]
        at = start + _PAGES_AT + page * (_PAGE.size + SIZE)
        _PAGE.pack_into(self._memory, at, len(data), zlib.crc32(data))
        self._memory[at + _PAGE.size : at + _PAGE.size + len(data)] = data
        # The page becomes the valid one only now that it is whole.
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
            # The worker wrote both pages meanwhile: read again.
        return False, {}

    def read_all(self) -> list[tuple[bool, Snapshot]]:
        return [self.read(slot) for slot in range(self._slots)]
