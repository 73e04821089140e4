"""Conditions: what must hold of a request besides what a capability or a policy says itself.

Pure. How an expression is compiled is no part of this: see `policies/cel.py`.

Invariants:

- A condition that cannot be told is not satisfied, whatever the cause.
- A capability has its own condition and those of all its ancestors, the root's first; all must
  hold. The first that does not is the one that is named.
- Of one question, at most MAX_EVALUATIONS are evaluated, and work of MAX_WORK is done, of
  MAX_WORK_OF_ONE for one of them; what is left then is not satisfied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from licet.domain.capability_index import Entry
from licet.domain.capability_set import HeldCapability
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId
from licet.domain.policy_facts import Facts

if TYPE_CHECKING:  # as there
    from licet.domain.decision import Request

EXPRESSION_BYTES: Final = 2048
MAX_EVALUATIONS: Final = 250
"""How many conditions of capabilities are evaluated for one question."""
MAX_WORK: Final = 2_500_000
"""How much `work` that may be: some 25 milliseconds, for what is made to cost most."""
MAX_WORK_OF_ONE: Final = 500_000
"""How much one of them may be: no other thread of the process runs meanwhile."""
_LONG: Final = "context", "resource", "capability"
"""The variables that may be long; too much of a text is taken for them rather than too little."""
_HANDING: Final = 7
"""What handing them to a condition costs, in comparisons of them."""
_SPACES: Final = "\t\n\r"
_SHOWN: Final = 200
_TOO_MANY: Final = (
    f"more than {MAX_EVALUATIONS} conditions would have to be evaluated; name a capability_id"
)
_TOO_MUCH: Final = "reading the context so often would take too long; send less, or compare a part"


class ExpressionError(Exception):
    """A condition cannot be told for a request; the message says why, for people."""


Condition: TypeAlias = Callable[[Facts], bool]
"""A compiled condition. Raises ExpressionError."""

Evaluate: TypeAlias = Callable[[str, Facts], bool]
"""Compiles and evaluates the text of a condition. Raises ExpressionError."""


class Unmet(NamedTuple):
    """A condition that does not hold.

    Attributes:
        condition: its text.
        error: why it cannot be told; empty: it is false.
    """

    condition: str
    error: str

    def describe(self) -> str:
        """Say what is wrong, in the words that follow the name of a capability."""
        text = self.condition
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        if self.error:
            return f"its condition `{shown}` cannot be told: {self.error}"
        return f"its condition `{shown}` does not hold"


def checked_text(text: str) -> str:
    """Check the text of a capability's condition; whether it can be compiled is another question.

    Raises:
        InvalidRequestError: it is too long, or nobody could read it.
    """
    if len(text.encode()) > EXPRESSION_BYTES:
        raise InvalidRequestError.of("condition", f"must have at most {EXPRESSION_BYTES} bytes")
    if any(not character.isprintable() and character not in _SPACES for character in text):
        raise InvalidRequestError.of("condition", "must not have control characters")
    return text


def work(text: str, facts: Facts) -> int:
    """Return what evaluating a condition can cost: 10 nanoseconds each.

    A text can compare the context with itself a hundred times, and each time the whole is read.
    """
    needed = 2 * len(text)
    named = sum(map(text.count, _LONG))
    if named:
        told = len(facts.request.context) + len(facts.request.resource)
        told += 2 * len(facts.capability.actions)
        needed += told * (_HANDING + named)
    return needed


def cannot_tell(text: str, facts: Facts) -> bool:  # noqa: ARG001 - an Evaluate
    """Evaluate no condition: where there is nothing to do it with, none is satisfied."""
    raise ExpressionError("conditions are not evaluated here")


class Conditions:
    """The conditions of the capabilities that one question is about."""

    __slots__ = ("_evaluate", "_facts", "_left", "_work_left")

    def __init__(self, evaluate: Evaluate, facts: Facts) -> None:
        """Take what evaluates a condition, and the facts; their capability is set for each."""
        self._evaluate = evaluate
        self._facts = facts
        self._left = MAX_EVALUATIONS
        self._work_left = MAX_WORK

    def unmet(self, capability: HeldCapability) -> Unmet | None:
        """Return the first condition of a capability that does not hold; None: all do."""
        facts = self._facts
        facts.capability = capability
        for text in capability.conditions:
            if not self._left:
                return Unmet(text, _TOO_MANY)
            self._left -= 1
            needed = work(text, facts)
            if needed > MAX_WORK_OF_ONE or needed > self._work_left:
                return Unmet(text, _TOO_MUCH)
            self._work_left -= needed
            try:
                if self._evaluate(text, facts) is not True:
                    return Unmet(text, "")
            except ExpressionError as exc:
                return Unmet(text, str(exc) or "it failed")
        return None


class Conditional:
    """What comes of the living capabilities with conditions that cover a request.

    Attributes:
        met: the first one whose conditions hold.
        closest: without one, of those that would allow otherwise, the first that could not be told,
            or else the first; and its condition.
        pending: the first to become valid.
        last: the last to expire.
    """

    __slots__ = ("closest", "last", "met", "pending")

    def __init__(
        self,
        entries: Iterable[Entry],
        request: Request,
        now: Instant,
        earliest: Instant,
        evaluate: Evaluate,
    ) -> None:
        """Look at them. What `evaluate` raises, but for ExpressionError, is raised."""
        self.met: HeldCapability | None = None
        self.closest: tuple[HeldCapability, Unmet] | None = None
        self.pending: HeldCapability | None = None
        self.last: HeldCapability | None = None
        conditions: Conditions | None = None
        for capability in self._in_time(entries, request.capability_id, now, earliest):
            if conditions is None:
                conditions = Conditions(evaluate, Facts(request, capability, now, earliest))
            unmet = conditions.unmet(capability)
            if unmet is None:
                self.met = capability
                return
            if self.closest is None or (unmet.error and not self.closest[1].error):
                self.closest = capability, unmet
            if unmet.error is _TOO_MANY:
                return

    def _in_time(
        self,
        entries: Iterable[Entry],
        wanted: CapabilityId | None,
        now: Instant,
        earliest: Instant,
    ) -> Iterator[HeldCapability]:
        """Yield those that may be used now, and note the others."""
        for entry in entries:
            for capability in entry:
                if wanted is not None and capability.id != wanted:
                    continue
                if now >= capability.expires_at:
                    if self.last is None or capability.expires_at > self.last.expires_at:
                        self.last = capability
                    break  # the others in this entry expired before this one
                if earliest >= capability.not_before:
                    yield capability
                else:
                    self.pending = earlier(self.pending, capability)


def earlier(one: HeldCapability | None, other: HeldCapability | None) -> HeldCapability | None:
    """Return the one of two that becomes valid first, the former of equals."""
    if one is None or (other is not None and other.not_before < one.not_before):
        return other
    return one
