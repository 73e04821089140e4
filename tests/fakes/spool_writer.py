"""A process that appends to a spool until it is killed, and tells each event once it may.

    python spool_writer.py ROOT DURABILITY

To standard output: 16 bytes an event, its sequence and the number that its body holds.
"""

from __future__ import annotations

import os
import struct
import sys
from itertools import count
from pathlib import Path
from threading import Thread

from licet.spool.folder import SpoolFolder
from licet.spool.writer import Durability, SpoolWriter

THREADS = 3
SEGMENT_BYTES = 64 * 1024
WRITER_ID = 7
TOLD = struct.Struct(">QQ")


def body(number: int) -> bytes:
    """Return a body of some hundred bytes that no other number has."""
    return b"%d " % number * (20 + number % 20)


def append(writer: SpoolWriter, thread: int) -> None:
    """Append, in turn one and several, and tell."""
    for turn in count():
        numbers = [(turn * 4 + n) * THREADS + thread for n in range(1 + turn % 4)]
        bodies = [body(number) for number in numbers]
        first = writer.append(bodies[0]) if len(bodies) == 1 else writer.append_all(bodies)
        writer.wait(first + len(bodies) - 1, 30)
        for sequence, number in enumerate(numbers, first):
            os.write(1, TOLD.pack(sequence, number))


def main() -> None:
    """Begin a folder, and append with several threads."""
    folder = SpoolFolder.create(Path(sys.argv[1]), WRITER_ID)
    writer = SpoolWriter(
        folder, Durability(sys.argv[2]), max_bytes=1 << 30, segment_bytes=SEGMENT_BYTES
    )
    threads = [Thread(target=append, args=[writer, thread]) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
