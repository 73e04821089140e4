"""Each error has one status, one reason, and details; nothing else reaches a client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.rpc import error_details_pb2
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status

from licet.domain.errors import (
    ForbiddenError,
    InvalidRequestError,
    LicetError,
    OutOfRangeError,
    RateLimitedError,
    RefusedError,
)
from licet.server import status
from licet.server.status import CODES, status_of

ABSTRACT = {RefusedError}


def _concrete(root: type[LicetError] = LicetError) -> Iterator[type[LicetError]]:
    for subclass in root.__subclasses__():
        if subclass not in ABSTRACT and subclass.__module__.startswith("licet."):
            yield subclass
        yield from _concrete(subclass)


CONCRETE = sorted(set(_concrete()), key=lambda error: error.__name__)


def _example(error: type[LicetError]) -> LicetError:
    if issubclass(error, InvalidRequestError):
        return error.of("field", "must be another")
    if issubclass(error, RefusedError | ForbiddenError):
        return error("CODE", "a sentence")
    if issubclass(error, RateLimitedError):
        return error("caller", "a sentence", 0.5)
    if issubclass(error, OutOfRangeError):
        return error("CODE", "a sentence", {"fact": "1"})
    return error("a sentence")


def _unpacked(error: LicetError) -> Status:
    metadata = dict(status_of(error).trailing_metadata or ())
    return Status.FromString(bytes(metadata["grpc-status-details-bin"]))  # type: ignore[arg-type] # bytes, by its name


def test_every_error_has_a_code_and_every_code_an_error() -> None:
    assert set(CODES) == set(CONCRETE)
    assert all(code not in {Code.OK, Code.UNKNOWN, Code.INTERNAL} for code in CODES.values())


def test_reasons_are_unique() -> None:
    reasons = [LicetError.reason, *(error.reason for error in CONCRETE)]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.isupper() and reason.isascii() for reason in reasons)


def test_only_a_failure_that_may_pass_says_when_to_retry() -> None:
    retried = {error.__name__ for error in CONCRETE if _retry(_example(error)) is not None}
    assert retried == {
        "ConflictError",
        "ExhaustedError",
        "NotSealedError",
        "RateLimitedError",
        "SlowConsumerError",
        "UnavailableError",
    }


def _retry(error: LicetError) -> error_details_pb2.RetryInfo | None:
    for detail in _unpacked(error).details:
        found = error_details_pb2.RetryInfo()
        if detail.Unpack(found):
            assert found.retry_delay.ToMilliseconds() > 0
            return found
    return None


@pytest.mark.parametrize("error", CONCRETE, ids=lambda error: error.__name__)
def test_an_error_carries_its_reason_and_its_sentence(error: type[LicetError]) -> None:
    example = _example(error)
    sent = _unpacked(example)
    assert (sent.code, sent.message) == (CODES[error], example.message)
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in sent.details)
    own = issubclass(error, (RefusedError, ForbiddenError, OutOfRangeError))
    assert (info.reason, info.domain) == ("CODE" if own else error.reason, "licet")
    assert dict(info.metadata) == _facts(example)


def _facts(error: LicetError) -> dict[str, str]:
    if isinstance(error, RateLimitedError):
        return {"limit": error.limit}
    return dict(error.facts) if isinstance(error, OutOfRangeError) else {}


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.000_1, 10), (0.5, 500), (0.501, 510), (1.0, 1000), (61.234, 61240)]
)
def test_who_waits_as_long_as_told_has_waited_long_enough(seconds: float, told: int) -> None:
    found = _retry(RateLimitedError("caller", "a sentence", seconds))
    assert found is not None
    assert found.retry_delay.ToMilliseconds() == told


def test_a_bug_says_nothing_about_itself() -> None:
    sent = status.internal()
    assert sent.details == "internal error"
    assert "INTERNAL" not in {error.reason for error in CONCRETE}
