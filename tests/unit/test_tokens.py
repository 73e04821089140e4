"""Page tokens: only ours, only with their filter, and only of this database."""

from __future__ import annotations

import base64

import pytest

from licet.domain.errors import InvalidRequestError
from licet.storage.tokens import SignedPageTokens

OURS = SignedPageTokens(b"k" * 32)
FILTER = b"12345678-and-more-of-the-digest"
POSITION = "1800000000000000 0199c5f0-6a5e-8cc3-98c4-dc0c0c07398f"
TOKEN = OURS.seal(FILTER, POSITION)


def refusal(token: str, digest: bytes = FILTER, tokens: SignedPageTokens = OURS) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        tokens.open(digest, token)
    (violation,) = caught.value.violations
    assert violation.field == "page_token"
    return violation.rule


@pytest.mark.parametrize("position", ["", POSITION, "é名🦊"])
def test_a_token_opens_to_its_position(position: str) -> None:
    assert OURS.open(FILTER, OURS.seal(FILTER, position)) == position


def test_a_token_is_the_same_on_every_replica() -> None:
    assert SignedPageTokens(b"k" * 32).open(FILTER, TOKEN) == POSITION


def test_a_token_fits_the_length_that_is_taken() -> None:
    assert len(TOKEN) < 1024


def test_a_token_of_another_filter_is_refused() -> None:
    assert refusal(TOKEN, b"1234567X") == "must come with the filter of the page before"


def test_a_token_of_another_database_is_refused() -> None:
    other = SignedPageTokens(b"K" * 32)
    assert refusal(TOKEN, tokens=other) == "must be a next_page_token of this service"


def test_a_token_with_any_byte_changed_is_refused() -> None:
    raw = base64.urlsafe_b64decode(TOKEN)
    for position in range(len(raw)):
        forged = bytearray(raw)
        forged[position] ^= 1
        assert refusal(base64.urlsafe_b64encode(forged).decode()).startswith("must be a next_page")


def test_a_token_that_is_cut_or_longer_is_refused() -> None:
    raw = base64.urlsafe_b64decode(TOKEN)
    for length in range(len(raw)):
        refusal(base64.urlsafe_b64encode(raw[:length]).decode())
    refusal(base64.urlsafe_b64encode(raw + b"x").decode())


def test_a_token_of_another_version_is_refused_though_we_signed_it() -> None:
    body = b"\x02" + FILTER[:8] + b"position"
    token = base64.urlsafe_b64encode(body + OURS._mac(body)).decode()  # noqa: SLF001 - a later us
    assert refusal(token) == "must be a next_page_token of this service"


@pytest.mark.parametrize("token", ["", "x", "====", "!!!!", TOKEN[1:], TOKEN + "\n", "é", "\0" * 8])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refusal(token) == "must be a next_page_token of this service"
