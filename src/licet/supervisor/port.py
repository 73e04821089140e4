"""One port for all workers: each listens on it by itself, and the kernel spreads connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Hold a port with SO_REUSEPORT, without listening, while workers come and go on it.

    Args:
        host: the address.
        port: the port; 0 takes a free one.

    Yields:
        The port.

    Raises:
        OSError: it is taken; by another server too, which SO_REUSEPORT would let us share it with.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
        yield holder.getsockname()[1]
