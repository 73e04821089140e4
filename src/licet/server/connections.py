"""A server's sockets: gRPC cannot stop listening and go on serving, the kernel can.

Closing a listener resets the connections that it has not accepted yet: to their clients a call has
failed. So first it takes no new ones: SYNs are dropped, which clients repeat after a second, while
the handshakes that have begun end and gRPC accepts what waits. Then it is closed, and the other
listeners on the port get all. A Unix socket has lost its name by then: nobody can find it any more.

A place is a TCP port, or the path of a Unix socket.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SETTLE_SECONDS: Final = 0.5
"""From dropping SYNs to closing: longer than a handshake takes, shorter than the second after which
a SYN is repeated (RFC 6298)."""
_SO_ATTACH_FILTER: Final = 26
# Classic BPF, on the TCP header: load the flags; keep SYN and ACK; SYN alone: drop, else: keep.
_DROP_SYN: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),
        (0x54, 0, 0, 0x12),
        (0x15, 0, 1, 0x02),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)
_INSTRUCTION_BYTES: Final = 8
_ESTABLISHED: Final = 1


def drop_new(*ports: int | str) -> None:
    """Let the listeners of this process on TCP ports take no new connections.

    Where the kernel does not allow it nothing happens: closing may then reset a few.
    """
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    count = len(_DROP_SYN) // _INSTRUCTION_BYTES
    argument = struct.pack("HP", count, ctypes.addressof(program))
    for listener in _sockets(ports):
        if _is_listening(listener):
            with suppress(OSError):
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)


def close_listeners(*places: int | str) -> None:
    """Let this process listen no more at some places; its connections stay."""
    for listener in _sockets(places):
        if _is_listening(listener):
            with suppress(OSError):
                # On a socket that listens, this ends that.
                listener.shutdown(socket.SHUT_RD)


def established(*places: int | str) -> int:
    """Return how many clients are connected to places of this process."""
    return sum(_is_established(found) for found in _sockets(places))


def _is_listening(found: socket.socket) -> bool:
    return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _is_established(found: socket.socket) -> bool:
    if found.family == socket.AF_UNIX:
        # What was accepted has its listener's name.
        return not _is_listening(found)
    return found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


def _sockets(places: Collection[int | str]) -> Iterator[socket.socket]:
    """Return this process's own sockets at some places, each until the next."""
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError), _borrowed(int(link.name)) as found:
            if found.type == socket.SOCK_STREAM and _place(found) in places:
                yield found


def _place(found: socket.socket) -> int | str | None:
    name = found.getsockname()
    if found.family in {socket.AF_INET, socket.AF_INET6}:
        return int(name[1])
    return str(name) if found.family == socket.AF_UNIX else None


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    # A copy of the descriptor, so that gRPC may close its own whenever it likes.
    copy = os.dup(descriptor)
    try:
        found = socket.socket(fileno=copy)
    except OSError:  # it is no socket
        os.close(copy)
        raise
    with found:
        yield found
