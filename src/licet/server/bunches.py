"""Answers of the serving thread that leave together.

To send to a client that sleeps is to wake it, and costs about as much as a decision. Under load
messages come several at a time: then the first answers wait for the last of these, and a client is
woken once for all of them. What comes alone is answered at once.

Held answers wait for no client and for no clock: with the first one a mark is put behind all that
has come by then, and where the serving thread meets the mark, it sends what is held.

Whether others come is known of calls of one message, which begin before it is there; if it is not
there at the mark either, it is not waited for any more. Of messages of streams it is tried: one in
`TRIED` is held though it may be alone, and as long as that finds others, all are.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from threading import get_ident
from typing import Final, Protocol

_log: Final = logging.getLogger(__name__)

MAX_HELD: Final = 64
"""So many answers at most leave together: the first has waited for the decisions of the others."""
EXPECTED: Final = 16
"""So many calls of a method can begin before the first of them has its message, and is answered."""
TRIED: Final = 16


class Bunched(Protocol):
    """A call whose answer may be held."""

    def deliver(self, message: bytes, /) -> None:
        """Send the answer now. It raises nothing."""
        ...

    def mark(self) -> None:
        """Have the serving thread call `Bunch.flush` when it has looked at all that has come.

        What it raises means that it will not.
        """
        ...


class Bunch:
    """The answers that are held. For the serving thread alone, but for `send`."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        """Have at most so many leave together."""
        self._limit = limit
        self.awaited: Final[set[Hashable]] = set()
        """The calls whose messages are about to come; taken off when they have, or at a mark."""
        self._not_awaited_after: set[Hashable] = set()  # the mark that is put
        self._own = 0
        self._is_marked = False
        self._since_mark = 0  # so many were held since
        self._come_together = False
        self._alone = 0  # so many messages of streams were answered without a try
        self._held: list[tuple[Bunched, bytes]] = []

    def begun(self, call: Hashable, *, is_awaited: bool) -> None:
        """Belong to this thread, which has begun a call; say whether its message is about to come.

        That of a stream is not: there may be none for hours.
        """
        self._own = get_ident()
        if is_awaited:
            self.awaited.add(call)

    def send(self, call: Bunched, message: bytes, *, is_stream: bool) -> None:
        """Send an answer, with those of the messages that come with its own.

        Another thread's is sent at once.
        """
        if get_ident() != self._own or not (
            self.awaited or self._held or (is_stream and self._may_not_be_alone())
        ):
            call.deliver(message)
            return
        self._held.append((call, message))
        self._since_mark += 1
        if not self._is_marked:
            self._put_mark(call)
        is_full = len(self._held) >= self._limit
        if is_full or not self._is_marked or not (self.awaited or is_stream):
            self._leave()

    def flush(self) -> None:
        """Send what is held: the mark has been met."""
        self._is_marked = False
        self._come_together = self._since_mark > 1
        self._since_mark = 0
        self.awaited.difference_update(self._not_awaited_after)
        self._not_awaited_after.clear()  # a call that has ended is not to be kept
        self._leave()

    def _put_mark(self, call: Bunched) -> None:
        try:
            call.mark()
        except Exception:  # noqa: BLE001 - whatever it was, nobody is to be held
            _log.exception("an answer is sent alone: no mark could be put")
        else:
            self._is_marked = True
            self._not_awaited_after = self.awaited.copy()

    def _may_not_be_alone(self) -> bool:
        if self._come_together:
            return True
        self._alone = (self._alone + 1) % TRIED
        return not self._alone

    def _leave(self) -> None:
        self._held, held = [], self._held
        for call, message in held:
            call.deliver(message)
