"""A TCP proxy in front of PostgreSQL that fails on demand.

It can cut connections, refuse new ones, stall, lose a statement before the server saw it, and
forward a statement and lose its answer: the client then cannot know what became of it.

Faults match the bytes that the client sends at once, which hold the statement's text and its
parameters, as long as both are small. Nothing sleeps: threads wait for sockets and conditions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Final, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.fakes.postgres import Database

_CHUNK: Final = 1 << 16
_READY: Final = b"Z\x00\x00\x00\x05"  # ReadyForQuery, before its one byte of status
_WAIT_SECONDS: Final = 10.0


@dataclass(eq=False)
class Fault:
    """What is to happen, once, to the next statement that matches.

    Attributes:
        statement: bytes that the statement or its parameters hold.
        after: bytes that went before it in the same transaction.
        forward: whether the server sees the statement; its answer is lost in any case.
        then: runs after the loss and before the client notices.
        cut: whether the connection is cut; otherwise it stays open and silent.
    """

    statement: bytes
    after: bytes = b""
    forward: bool = True
    then: Callable[[], None] = lambda: None
    cut: bool = True
    _happened: Event = field(default_factory=Event)

    def happened(self) -> bool:
        """Wait until the fault happened; with `forward`, until the server had answered."""
        return self._happened.wait(_WAIT_SECONDS)

    def _happen(self) -> None:
        self.then()
        self._happened.set()


class PostgresProxy:
    """Forwards connections to a PostgreSQL server; see the module."""

    def __init__(self, database: Database) -> None:
        """Forward to the server of a database."""
        options = conninfo_to_dict(database.url)
        host, port = str(options.get("host", "")), int(options.get("port") or 5432)
        unix = host.startswith("/")
        self._family = socket.AF_UNIX if unix else socket.AF_INET
        self._upstream = f"{host}/.s.PGSQL.{port}" if unix else (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.database = Database(
            database.name,
            make_conninfo(
                database.url,
                host="127.0.0.1",
                port=self._listener.getsockname()[1],
                sslmode="disable",
                gssencmode="disable",
            ),
        )
        # Guards the fields below.
        self._mutex = Lock()
        self._links: set[_Link] = set()
        self._faults: list[Fault] = []
        self._refusing = False
        self._statements: list[str] = []
        self._flowing = Event()
        self._flowing.set()
        self._accepting = Thread(target=self._accept, name="proxy")

    def __enter__(self) -> Self:
        """Accept connections."""
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut everything and stop."""
        self.refuse()
        self.resume()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(_WAIT_SECONDS)
        self._listener.close()
        for link in self.cut():
            link.join()

    def cut(self) -> tuple[_Link, ...]:
        """Cut all open connections."""
        with self._mutex:
            links = tuple(self._links)
        for link in links:
            link.close()
        return links

    def refuse(self) -> None:
        """Cut new connections as soon as they are made."""
        with self._mutex:
            self._refusing = True

    def go_down(self) -> None:
        """Be a server that is not there: refuse and cut."""
        self.refuse()
        self.cut()

    def come_back(self) -> None:
        """Accept connections again."""
        with self._mutex:
            self._refusing = False

    def stall(self) -> None:
        """Forward nothing, either way, and leave the connections open."""
        self._flowing.clear()

    def resume(self) -> None:
        """Forward again, what was held back first."""
        self._flowing.set()

    def arm(self, fault: Fault) -> Fault:
        """Let a fault happen to the next statement that matches."""
        with self._mutex:
            self._faults.append(fault)
        return fault

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Collect the text of every statement that is executed while the block runs."""
        with self._mutex:
            self._statements = []
            collected = self._statements
        yield collected
        with self._mutex:
            self._statements = []

    def executed(self, text: str) -> None:
        """Note a statement; called by links."""
        with self._mutex:
            self._statements.append(text)

    def wait_until_flowing(self) -> None:
        """Return when nothing is held back; called by links."""
        self._flowing.wait()

    def fault_for(self, sent: bytes, since_begin: bytes) -> Fault | None:
        """Take the fault that matches, if any; called by links."""
        with self._mutex:
            for fault in self._faults:
                if fault.statement in sent and fault.after in since_begin:
                    self._faults.remove(fault)
                    return fault
        return None

    def forget(self, link: _Link) -> None:
        """Drop a link that has ended; called by links."""
        with self._mutex:
            self._links.discard(link)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                with self._mutex:
                    if self._refusing:
                        client.close()
                        continue
                server = socket.socket(self._family)
                server.connect(self._upstream)
                link = _Link(self, client, server)
                with self._mutex:
                    self._links.add(link)
                link.start()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._statements = _Statements()
        self._since_begin = b""
        self._losing: Fault | None = None
        self._thread = Thread(target=self._run, name="proxy-link")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Cut both ends; the threads notice and end."""
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        self._thread.join(_WAIT_SECONDS)

    def _run(self) -> None:
        downwards = Thread(target=self._pump, args=(self._downwards,), name="proxy-link")
        downwards.start()
        self._pump(self._upwards)
        downwards.join()
        self._client.close()
        self._server.close()
        self._proxy.forget(self)

    def _pump(self, pump: Callable[[], None]) -> None:
        with suppress(OSError):  # an end was cut
            pump()
        self.close()

    def _upwards(self) -> None:
        while data := self._client.recv(_CHUNK):
            self._proxy.wait_until_flowing()
            self._since_begin = b"" if b"BEGIN" in data else self._since_begin + data
            for text in self._statements.feed(data):
                self._proxy.executed(text)
            fault = self._proxy.fault_for(data, self._since_begin)
            if fault is not None and not fault.forward:
                fault._happen()  # noqa: SLF001 - the two are one mechanism
                return
            self._losing = fault
            self._server.sendall(data)

    def _downwards(self) -> None:
        answer = b""
        while data := self._server.recv(_CHUNK):
            self._proxy.wait_until_flowing()
            fault = self._losing
            if fault is None:
                self._client.sendall(data)
                continue
            answer += data
            if answer[-6:-1] == _READY:
                # The server is done, the change is committed, and nobody will hear of it.
                fault._happen()  # noqa: SLF001 - the two are one mechanism
                if fault.cut:
                    return


class _Statements:
    """Takes what a client sends apart, as far as needed to know which statements it executes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self._prepared: dict[bytes, str] = {}
        self._bound = ""

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the text of each statement that this data executes."""
        self._buffer += data
        head = 1 if self._started else 0  # the first message has no byte of type
        while len(self._buffer) >= head + 4:
            end = head + int.from_bytes(self._buffer[head : head + 4], "big")
            if len(self._buffer) < end:
                return
            kind, body = self._buffer[:head], self._buffer[head + 4 : end]
            self._buffer = self._buffer[end:]
            self._started, head = True, 1
            yield from self._executed(kind, body)

    def _executed(self, kind: bytes, body: bytes) -> Iterator[str]:
        if kind == b"Q":  # a simple query
            yield body.rstrip(b"\0").decode()
        elif kind == b"P":  # Parse: name, text, types
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name] = text.decode()
        elif kind == b"B":  # Bind: portal, name, parameters
            self._bound = self._prepared[body.split(b"\0", 2)[1]]
        elif kind == b"E":  # Execute what was bound last
            yield self._bound
