"""What an agent program needs beside its work: heartbeats, and the next token in time."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from datetime import timedelta
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self

from licet.client.agents import AgentToken
from licet.client.client import DEFAULT_TIMEOUT_SECONDS, Client
from licet.client.errors import LicetCallError
from licet.client.transport import Tls

_log: Final = logging.getLogger(__name__)

_FIRST_SECONDS: Final = 1.0
"""How soon a heartbeat is repeated while none has been answered yet."""
_ATTEMPTS: Final = 3
_STOP_SECONDS: Final = 10.0


class AgentRunner:
    """Keeps an agent known to licet while its program runs.

        with AgentRunner("127.0.0.1:50051", token, store=write_to_file) as agent:
            if agent.client.authorize("agent:worker-17", "read", "doc:reports/q3").allowed:
                ...

    A thread says that the agent lives, as often as the server wants, and rotates the token when it
    has 8 to 16 hours left, by chance, so that agents that were started together do not rotate
    together. `client` calls with the newest token at any time.
    """

    def __init__(  # noqa: PLR0913 - what a client takes, and what to do with a new token
        self,
        address: str,
        token: str,
        *,
        store: Callable[[str], None],
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        tls: Tls | None = None,
        rotate_below: timedelta | None = None,
    ) -> None:
        """Take an agent's token; `start` begins.

        Args:
            address: host and port.
            token: of the agent, as it was registered or stored last.
            store: keeps a new token where the program finds it when it starts again. When it
                raises, it is called again with each heartbeat.
            timeout: seconds for each call.
            tls: whom to trust; None: in plain text.
            rotate_below: when the token is rotated, if not by chance.

        Raises:
            OSError: a file of `tls` cannot be read.
        """
        self._token = token
        self._store = store
        self._is_stored = True
        spread = timedelta(hours=8 + 8 * random.random())  # noqa: S311 - no secret
        self._rotate_below = spread if rotate_below is None else rotate_below
        self.client = Client(address, timeout=timeout, tls=tls, api_key=lambda: self._token)
        """Calls as the agent; closed when this is stopped."""
        self.ended = Event()
        """Set when the token counts no more: the agent was deactivated, or was away for too long.

        It has to be registered again."""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-agent", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close the client. The token goes on, for the next start."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)
        self.client.close()

    def _run(self) -> None:
        pause = _FIRST_SECONDS
        while not self._stopping.is_set():
            try:
                told = self.client.agents.heartbeat()
                pause = told.heartbeat_interval.total_seconds()
                if told.token_expires_in < self._rotate_below:
                    self._rotate()
                if not self._is_stored:
                    self._keep()
            except LicetCallError as exc:
                if exc.code == "UNAUTHENTICATED":
                    _log.error("the agent's token has ended; it has to be registered again")
                    self.ended.set()
                    return
                _log.warning("licet does not hear this agent: %s", exc)
            except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
                _log.exception("licet does not hear this agent")
            self._stopping.wait(pause)

    def _rotate(self) -> None:
        given = self._given()
        # Used before it is stored: the old one is over in five minutes, stored or not.
        self._token, self._is_stored = given.token, False

    def _given(self) -> AgentToken:
        for _ in range(_ATTEMPTS):
            given = self.client.agents.rotate()
            if given.token:
                return given
            # The answer with it was lost, and the call repeated; the old token still counts, and
            # rotating it once more ends what was lost.
        raise LicetCallError("UNAVAILABLE", "the answers with the next token are lost")

    def _keep(self) -> None:
        try:
            self._store(self._token)
        except Exception:  # noqa: BLE001 - the program's own; the token is in use all the same
            _log.exception("the agent's new token could not be stored; it is tried again")
            return
        self._is_stored = True
