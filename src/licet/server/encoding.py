"""Answers to decisions as the bytes of their messages, which are most of what a replica sends.

What nearly every answer has is put together here, at a third of what a message of the library costs
(docs/decisions/0049-encoded-answers.md); the others are `render.py`'s. Of both the bytes are those
of the library, as the tests make sure: fields in the order of their numbers, none that is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from licet.app.authorize import Answer
from licet.domain.decision import Reason, describe
from licet.server import render
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2

_REMEMBERED: Final = 64
"""Of how many revisions the bytes are: decisions of a moment are of few."""


@lru_cache(_REMEMBERED)
def _revision(revision: int) -> bytes:
    return pb.AuthorizeResponse(revision=revision).SerializeToString()


def _varint(number: int) -> bytes:
    """Return a positive number as protobuf writes it: a revision, without its tag."""
    return _revision(number)[1:]


_LENGTHS: Final = (b"\0", *(_varint(length) for length in range(1, 4096)))
"""By length in bytes; an answer with a longer sentence is left to the library."""
_RESPONSE: Final = b"\x0a"
_DETAIL: Final = b"\x1a"
_CORRELATION: Final = b"\x5a"


def _head(reason: Reason) -> bytes:
    """Return the fields before the length of `detail`: `decision`, `reason`, and its tag."""
    allowed = reason is Reason.GRANTED
    decision = decision_pb2.DECISION_ALLOW if allowed else decision_pb2.DECISION_DENY
    fields = pb.AuthorizeResponse(decision=decision, reason=render.REASONS[reason])
    return fields.SerializeToString() + _DETAIL


_ALLOW: Final = _head(Reason.GRANTED)
_DENY: Final = {reason.value: _head(reason) for reason in Reason if reason is not Reason.GRANTED}


def authorize(answer: Answer) -> bytes:
    """Encode an AuthorizeResponse."""
    request, decision, event_id, explanation, approval_id = answer
    judgement = decision.judgement
    if (
        decision.valid_until is not None
        or explanation is not None
        or approval_id
        or (judgement is not None and judgement.reason is not None)
    ):
        return render.authorize(answer).SerializeToString()
    detail = describe(decision, request).encode()
    size = len(detail)
    if size >= len(_LENGTHS):
        return render.authorize(answer).SerializeToString()
    capability, correlation = decision.capability, request.correlation_id
    # Ids are UUIDs, of 36 characters, which is what "$" is as a length.
    ids = f"2${event_id}" if capability is None else f'"${capability.id}2${event_id}'
    encoded = b"".join(
        (
            _ALLOW if decision.allowed else _DENY[decision.reason._value_],
            _LENGTHS[size],
            detail,
            ids.encode(),
            _revision(decision.revision),
        )
    )
    if correlation:
        text = correlation.encode()
        return encoded + _CORRELATION + _LENGTHS[len(text)] + text
    return encoded


def several(answers: Iterable[Answer]) -> bytes:
    """Encode a BatchAuthorizeResponse, or a StreamAuthorizeResponse, which is written the same."""
    pieces: list[bytes] = []
    for answer in answers:
        encoded = authorize(answer)
        size = len(encoded)
        pieces += (_RESPONSE, _LENGTHS[size] if size < len(_LENGTHS) else _varint(size), encoded)
    return b"".join(pieces)
