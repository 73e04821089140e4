"""A TCP proxy between one worker and PostgreSQL, that can be cut, stalled, slowed and deafened."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Final, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_CHUNK: Final = 1 << 16
_NOTIFICATION: Final = b"A"
_JOIN_SECONDS: Final = 10.0


class SlowProxy:
    """Forwards connections to PostgreSQL, as well as it is told to."""

    def __init__(self, url: str) -> None:
        """Listen on a free port of loopback, in front of the server that libpq reaches by `url`."""
        options = conninfo_to_dict(url)
        host, port = str(options.get("host", "")), int(options.get("port") or 5432)
        unix = host.startswith("/")
        self._family = socket.AF_UNIX if unix else socket.AF_INET
        self._upstream = f"{host}/.s.PGSQL.{port}" if unix else (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = make_conninfo(
            url,
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            sslmode="disable",
            gssencmode="disable",
        )
        # Guards `_sockets` and `_refusing`.
        self._mutex = Lock()
        self._sockets: set[socket.socket] = set()
        self._refusing = False
        self._delay = 0.0
        self._deaf = False
        self.swallowed = 0
        """How many notifications were swallowed."""
        self._flowing_up, self._flowing_down = Event(), Event()
        self._flow()
        self._closed = Event()
        self._threads = [Thread(target=self._accept, name="slow-proxy")]

    def __enter__(self) -> Self:
        """Accept connections."""
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut everything and stop."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.go_down()
        self._flow()
        for thread in list(self._threads):
            thread.join(_JOIN_SECONDS)
        self._listener.close()

    def cut(self) -> None:
        """Cut every connection; new ones are welcome."""
        with self._mutex:
            sockets = list(self._sockets)
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def go_down(self) -> None:
        """Cut every connection and refuse new ones."""
        with self._mutex:
            self._refusing = True
        self.cut()

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Be half open: keep every connection and forward nothing, or nothing in one direction.

        With `down` alone PostgreSQL does what it is told, and the answers are not heard of.
        """
        if up:
            self._flowing_up.clear()
        if down:
            self._flowing_down.clear()

    def slow(self, seconds: float) -> None:
        """Forward everything this much later, each way."""
        self._delay = seconds

    def deafen(self) -> None:
        """Swallow notifications, and forward everything else."""
        self._deaf = True

    def heal(self) -> None:
        """Forward at once, what was held back first, and accept connections again."""
        self._delay = 0.0
        self._deaf = False
        with self._mutex:
            self._refusing = False
        self._flow()

    def _flow(self) -> None:
        self._flowing_up.set()
        self._flowing_down.set()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while not self._closed.is_set():
                client, _ = self._listener.accept()
                self._link(client)

    def _link(self, client: socket.socket) -> None:
        server = socket.socket(self._family)
        try:
            server.connect(self._upstream)
        except OSError:  # the server is not there: neither is the proxy
            client.close()
            server.close()
            return
        with self._mutex:
            self._sockets |= {client, server}
            # Either this sees the refusal, or the cut that follows it sees these two.
            refusing = self._refusing
        thread = Thread(target=self._run, args=(client, server), name="slow-proxy-link")
        self._threads = [known for known in self._threads if known.is_alive()] + [thread]
        thread.start()
        if refusing:
            self.cut()

    def _run(self, client: socket.socket, server: socket.socket) -> None:
        messages = _Messages(self._is_wanted)
        downwards = Thread(
            target=self._pump,
            args=(server, client, self._flowing_down, messages.feed),
            name="slow-proxy-link",
        )
        downwards.start()
        self._pump(client, server, self._flowing_up, bytes)
        downwards.join()
        with self._mutex:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        flowing: Event,
        filtered: Callable[[bytes], bytes],
    ) -> None:
        with suppress(OSError):  # an end was cut
            while data := source.recv(_CHUNK):
                if self._delay:
                    self._closed.wait(self._delay)
                flowing.wait()
                sink.sendall(filtered(data))
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_wanted(self, kind: bytes) -> bool:
        if not self._deaf or kind != _NOTIFICATION:
            return True
        self.swallowed += 1
        return False


class _Messages:
    """Takes apart what PostgreSQL sends: a byte of type and a length in front of each message."""

    def __init__(self, is_wanted: Callable[[bytes], bool]) -> None:
        self._is_wanted = is_wanted
        self._buffer = b""

    def feed(self, data: bytes) -> bytes:
        """Return the whole messages up to here that are wanted."""
        self._buffer += data
        start, kept = 0, []
        while len(self._buffer) >= start + 5:
            end = start + 1 + int.from_bytes(self._buffer[start + 1 : start + 5], "big")
            if len(self._buffer) < end:
                break
            if self._is_wanted(self._buffer[start : start + 1]):
                kept.append(self._buffer[start:end])
            start = end
        self._buffer = self._buffer[start:]
        return b"".join(kept)
