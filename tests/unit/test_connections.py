"""Leaving a port: no new connection, and none that waits is reset."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from licet.server import connections


def listener() -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind(("127.0.0.1", 0))
    opened.listen()
    return opened


def test_who_had_connected_is_served_and_who_comes_is_not() -> None:
    with listener() as listening, socket.socket() as early, socket.socket() as late:
        port = listening.getsockname()[1]
        early.connect(("127.0.0.1", port))
        connections.drop_new(port)
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.connect(("127.0.0.1", port))
        # It was in the queue before, and its bytes pass: they are no SYN.
        early.sendall(b"asked")
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.recv(5) == b"asked"
            assert connections.established(port) == 1
            connections.close_listeners(port)
            accepted.sendall(b"answered")
            assert early.recv(8) == b"answered"
    assert connections.established(port) == 0


def test_another_listener_on_the_port_gets_who_comes() -> None:
    with listener() as leaving:
        port = leaving.getsockname()[1]
        connections.close_listeners(port)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port), timeout=5):
                    other.accept()[0].close()


def test_looking_leaves_no_descriptor_open() -> None:
    with Path(os.devnull).open(encoding="ascii"), listener() as listening:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            connections.established(listening.getsockname()[1])
        assert len(list(Path("/proc/self/fd").iterdir())) == before
