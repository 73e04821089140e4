"""Errors: the sentence for people and the reason for programs."""

from __future__ import annotations

from licet.domain.errors import (
    InvalidRequestError,
    LicetError,
    NotPermittedError,
    PreconditionError,
    Violation,
)


def test_an_error_has_a_sentence_and_a_reason() -> None:
    error = LicetError("something happened")
    assert str(error) == error.message == "something happened"
    assert error.reason == "INTERNAL"


def test_an_invalid_request_tells_each_violation() -> None:
    error = InvalidRequestError(Violation("action", "is required"), Violation("ttl", "is too long"))
    assert str(error) == "action is required; ttl is too long"
    assert error.reason == "INVALID_REQUEST"


def test_a_refusal_has_a_code_of_its_own_beside_the_reason_of_its_class() -> None:
    for refused, reason in (
        (NotPermittedError("EXPIRY_WIDER", "later than the parent's"), "NOT_PERMITTED"),
        (PreconditionError("EXPIRY_WIDER", "later than the parent's"), "FAILED_PRECONDITION"),
    ):
        assert (refused.code, refused.reason) == ("EXPIRY_WIDER", reason)
        assert str(refused) == "later than the parent's"
