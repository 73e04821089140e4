"""Compiled conditions of capabilities, by their text: what many capabilities say is compiled once.

Nothing here is of a revision: what a text means does not change while the process runs.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.condition import Condition, ExpressionError

_log: Final = logging.getLogger(__name__)

MAX_TEXT_BYTES: Final = 256 * 1024
"""How much text is kept compiled, which weighs some sixty times as much."""
_LEAST_BYTES: Final = 64
"""What a short text counts."""


class CompiledConditions:
    """See `app.conditions.CompiledConditions`.

    A hit takes no lock: single operations on an OrderedDict are atomic.
    """

    def __init__(
        self, compile_condition: Callable[[str], Condition], max_bytes: int = MAX_TEXT_BYTES
    ) -> None:
        """Take what compiles a text, and raises ExpressionError."""
        self._compile = compile_condition
        self._max_bytes = max_bytes
        # Guards what follows against other writers; held while one compiles, for which the others
        # wait: the engine does not say whether several may ask it at once.
        self._mutex = Lock()
        self._compiled: OrderedDict[str, Condition] = OrderedDict()
        self._bytes = 0

    def __call__(self, text: str, deadline: Deadline) -> Condition:
        """See `app.conditions.CompiledConditions`."""
        found = self._compiled.get(text)
        if found is not None:
            try:  # noqa: SIM105 - `suppress` costs more than the look-up
                self._compiled.move_to_end(text)
            except KeyError:
                pass  # it made room for another meanwhile
            return found
        if deadline is AT_ONCE:
            raise NotAtOnceError
        with self._mutex:
            found = self._compiled.get(text)
            if found is None:
                found = self._compile_or_refuse(text)
                self._keep(text, found)
        return found

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._compiled)

    def _compile_or_refuse(self, text: str) -> Condition:
        try:
            return self._compile(text)
        except ExpressionError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is not satisfied
            _log.exception("a condition cannot be compiled")
            raise ExpressionError(type(exc).__name__) from None

    def _keep(self, text: str, compiled: Condition) -> None:
        self._compiled[text] = compiled
        self._bytes += _weight(text)
        while self._bytes > self._max_bytes:
            former, _ = self._compiled.popitem(last=False)
            self._bytes -= _weight(former)


def _weight(text: str) -> int:
    return max(len(text), _LEAST_BYTES)
