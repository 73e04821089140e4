"""Conditions of capabilities, as the use cases compile and evaluate them.

They come from whoever may delegate, and not from those who look after the policies: so they are
kept from the thread that all others wait for wherever one could take long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.condition import Condition, ExpressionError, work
from licet.domain.errors import InvalidRequestError
from licet.domain.policy_facts import Facts

MAX_AT_ONCE: Final = 20
"""How many are evaluated, for all questions together, on the thread that all others wait for: each
takes some 7 microseconds, and the following besides."""
MAX_CONTEXT_AT_ONCE: Final = 1024
"""How many characters of JSON the context may have there: all of it is read for each question."""
MAX_WORK_AT_ONCE: Final = 15_000
"""How much `work` they may be there: some 150 microseconds, for what is made to cost most."""
_SLOW: Final = "matches"
"""What takes long on a text that is made for it."""

CompiledConditions: TypeAlias = Callable[[str, Deadline], Condition]
"""Returns the compiled condition of a text, from memory or by compiling it.

Raises:
    ExpressionError: this release cannot compile it.
    NotAtOnceError: it was `AT_ONCE`, and memory does not have it.
"""


def no_conditions(text: str, deadline: Deadline) -> Condition:  # noqa: ARG001 - CompiledConditions
    """Compile nothing."""
    raise ExpressionError("conditions are not evaluated here")


class Evaluation:
    """Evaluates the conditions of one call: `domain.condition.Evaluate`.

    Raises NotAtOnceError, besides, where the deadline is `AT_ONCE` and it could take long.
    """

    __slots__ = ("_compiled", "_deadline", "_left", "_work_left")

    def __init__(self, compiled: CompiledConditions, deadline: Deadline) -> None:
        """Take the deadline of the call."""
        self._compiled = compiled
        self._deadline = deadline
        self._left = MAX_AT_ONCE
        self._work_left = MAX_WORK_AT_ONCE

    def __call__(self, text: str, facts: Facts) -> bool:
        """Say whether a condition holds."""
        if self._deadline is AT_ONCE:
            if not self._left or len(facts.request.context) > MAX_CONTEXT_AT_ONCE or _SLOW in text:
                raise NotAtOnceError
            self._left -= 1
            self._work_left -= work(text, facts)
            if self._work_left < 0:
                raise NotAtOnceError
        condition = self._compiled(text, self._deadline)
        try:
            return condition(facts)
        except ExpressionError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is not satisfied
            raise ExpressionError(type(exc).__name__) from None


def check_condition(text: str, compiled: CompiledConditions, deadline: Deadline) -> None:
    """Check the condition of a grant.

    Raises:
        InvalidRequestError: it cannot be used; the rule says why and where.
    """
    if not text:
        return
    try:
        compiled(text, deadline)
    except ExpressionError as exc:
        raise InvalidRequestError.of("condition", f"cannot be used: {exc}") from None
