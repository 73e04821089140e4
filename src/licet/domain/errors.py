"""Why licet could not do what it was asked; no gRPC codes, those are in `server/status.py`.

A denial is not here: it is an answer (see `decision.py`).

    LicetError                  reason              state afterwards
    |__ InvalidRequestError     INVALID_REQUEST     nothing happened; do not retry
    |__ UnauthenticatedError    UNAUTHENTICATED     nothing happened
    |__ ForbiddenError          by rule             nothing happened
    |__ NotFoundError           NOT_FOUND           nothing happened
    |__ NotPermittedError       by dimension        nothing happened but for the record of the
    attempt
    |__ PreconditionError       by condition        nothing happened but for the record of the
    attempt
    |__ HistoryUnconfirmedError HISTORY_UNCONFIRMED nothing happened; an operator must act first
    |__ RequestIdReusedError    REQUEST_ID_REUSED   nothing happened
    |__ ConflictError           CONFLICT            nothing happened; retry the call
    |__ NotSealedError          NOT_SEALED          nothing happened; retry in a second
    |__ NotAsSealedError        NOT_AS_SEALED       nothing happened; do not retry, look into it
    |__ OutOfRangeError         by condition        nothing happened; begin anew from now
    |__ ExhaustedError          EXHAUSTED           nothing happened; retry later
    |__ RateLimitedError        RATE_LIMITED        nothing happened; retry when it says so, slower
    |__ SlowConsumerError       SLOW_CONSUMER       what was sent counts; resume after it
    |__ UnavailableError        UNAVAILABLE         nothing happened; retry with backoff
    |__ DeadlineError           DEADLINE_EXCEEDED   nothing happened
    |__ OutcomeUnknownError     OUTCOME_UNKNOWN     happened whole or not at all; `request_id` tells
    |__ UnconfirmedError        UNCONFIRMED         happened; a replica may not know of it yet

A class exists because someone reacts differently to it, not because its text differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that breaks a rule.

    Attributes:
        field: the path of the field in the request, such as `requests[3].principal`.
        rule: the rule, as a sentence that completes "`field` ...".
    """

    field: str
    rule: str


class LicetError(Exception):
    """The root: a sentence for people, and a reason for programs."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str) -> None:
        """Keep the sentence, which must hold no secret and no driver text."""
        super().__init__(message)
        self.message = message


class InvalidRequestError(LicetError):
    """The request is malformed; `violations` names each field and rule."""

    reason = "INVALID_REQUEST"

    def __init__(self, *violations: Violation) -> None:
        """Describe the violations in one sentence."""
        super().__init__("; ".join(f"{v.field} {v.rule}" for v in violations))
        self.violations = violations

    @classmethod
    def of(cls, field: str, rule: str) -> InvalidRequestError:
        """Return the error for one violation."""
        return cls(Violation(field, rule))


class UnauthenticatedError(LicetError):
    """Who calls is not known: no credential, or none that counts. Of keys it is not told which."""

    reason = "UNAUTHENTICATED"


class ForbiddenError(LicetError):
    """The caller lacks a scope, or asks about what is outside its limits; nothing was looked at."""

    reason = "FORBIDDEN"

    def __init__(self, code: str, message: str) -> None:
        """Keep the code, which is ErrorInfo's reason."""
        super().__init__(message)
        self.code = code


class NotFoundError(LicetError):
    """What the request names does not exist."""

    reason = "NOT_FOUND"


class RefusedError(LicetError):
    """A change that the rules do not allow; recorded in the audit log before it is raised."""

    def __init__(self, code: str, message: str) -> None:
        """Keep the code, which is the audit event's `reason` and ErrorInfo's."""
        super().__init__(message)
        self.code = code


class NotPermittedError(RefusedError):
    """The caller may not make this change, or the delegation would widen its parent."""

    reason = "NOT_PERMITTED"


class PreconditionError(RefusedError):
    """The state does not allow the change: the parent has ended, or has no depth left."""

    reason = "FAILED_PRECONDITION"


class HistoryUnconfirmedError(LicetError):
    """The database may have lost changes; none is made before its operator confirms its history."""

    reason = "HISTORY_UNCONFIRMED"


class RequestIdReusedError(LicetError):
    """The idempotency key was used before with another body."""

    reason = "REQUEST_ID_REUSED"


class ConflictError(LicetError):
    """The call lost a race; the same call can succeed when repeated."""

    reason = "CONFLICT"


class UnstorableError(Exception):
    """Events that the audit log cannot hold: which one it is, halving tells.

    Between the shipper and the storage only; no call ever ends with it.
    """


class NotSealedError(LicetError):
    """What is to be proved is on record, and under no checkpoint yet."""

    reason = "NOT_SEALED"


class NotAsSealedError(LicetError):
    """What is stored of the audit log is not what was sealed: somebody changed it."""

    reason = "NOT_AS_SEALED"


class OutOfRangeError(LicetError):
    """The history does not reach to where the request wants to go on."""

    reason = "OUT_OF_RANGE"

    def __init__(self, code: str, message: str, facts: Mapping[str, str]) -> None:
        """Keep the code, which is ErrorInfo's reason, and the facts, which are its metadata."""
        super().__init__(message)
        self.code = code
        self.facts = facts


class ExhaustedError(LicetError):
    """A limit of the server is reached."""

    reason = "EXHAUSTED"


class RateLimitedError(LicetError):
    """Somebody asks more than they may in this time; `seconds` from now, as much will be free."""

    reason = "RATE_LIMITED"

    def __init__(self, limit: str, message: str, seconds: float) -> None:
        """Keep which limit it was, for programs, and how long to wait."""
        super().__init__(message)
        self.limit = limit
        self.seconds = seconds


class SlowConsumerError(LicetError):
    """The client of a stream takes its messages too slowly."""

    reason = "SLOW_CONSUMER"


class UnavailableError(LicetError):
    """Nothing could be decided or changed now."""

    reason = "UNAVAILABLE"


class DeadlineError(LicetError):
    """The caller's deadline passed before anything was decided or changed."""

    reason = "DEADLINE_EXCEEDED"


class OutcomeUnknownError(LicetError):
    """The deadline passed after a change was sent and before its outcome was known."""

    reason = "OUTCOME_UNKNOWN"


class UnconfirmedError(LicetError):
    """The change is committed, and the deadline passed before every replica had confirmed it."""

    reason = "UNCONFIRMED"
