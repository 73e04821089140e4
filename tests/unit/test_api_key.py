"""The text of an API key: what is one, what is not, and what it shows."""

from __future__ import annotations

import hashlib
from base64 import b32encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licet.domain import api_key
from licet.domain.api_key import KeyId

TAG_KEY = bytes(range(32))
ENTROPY = st.binary(min_size=6, max_size=6)
SECRETS = st.binary(min_size=32, max_size=32)
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def test_the_format_stays() -> None:
    """Keys are in the hands of others: a change here would end them all."""
    key_id = api_key.new_id(b"abcdef", TAG_KEY)
    text = api_key.render(key_id, bytes(range(32)))
    assert key_id == "c5h66s35crm6fp2h"
    assert text == (
        "licet_c5h66s35crm6fp2h_000g40r40m30e209185gr38e1w8124gk2gahc5rr34d1p70x3rfg1mvs5q8"
    )


@given(ENTROPY, SECRETS)
def test_what_is_rendered_is_parsed(entropy: bytes, secret: bytes) -> None:
    key_id = api_key.new_id(entropy, TAG_KEY)
    token = api_key.parse(api_key.render(key_id, secret))
    assert token is not None
    assert token.key_id == key_id
    assert token.secret.translate(str.maketrans(ALPHABET, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")) == (
        b32encode(secret).decode().rstrip("=")
    )
    assert api_key.digest(token.secret) == hashlib.sha256(token.secret.encode()).digest()
    assert token.secret not in repr(token)


@given(ENTROPY, SECRETS, st.integers(0, 81), st.sampled_from(ALPHABET + "ilouILOU _-"))
def test_one_wrong_character_is_found(entropy: bytes, secret: bytes, at: int, other: str) -> None:
    text = api_key.render(api_key.new_id(entropy, TAG_KEY), secret)
    wrong = text[:at] + other + text[at + 1 :]
    assert (api_key.parse(wrong) is None) == (wrong != text)


@given(ENTROPY, SECRETS, st.integers(6, 80))
def test_two_characters_in_the_wrong_order_are_found(
    entropy: bytes, secret: bytes, at: int
) -> None:
    text = api_key.render(api_key.new_id(entropy, TAG_KEY), secret)
    wrong = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    assert (api_key.parse(wrong) is None) == (wrong != text)


@pytest.mark.parametrize("text", ["", "licet_", "licet__", "x" * 82, "licet_" + "0" * 76])
def test_what_is_no_key_is_none(text: str) -> None:
    assert api_key.parse(text) is None
    assert api_key.parse(text + "\n") is None


@given(ENTROPY)
def test_an_id_is_issued_by_who_has_the_key(entropy: bytes) -> None:
    key_id = api_key.new_id(entropy, TAG_KEY)
    assert api_key.is_id(key_id)
    assert api_key.is_issued(key_id, TAG_KEY)
    assert not api_key.is_issued(key_id, bytes(32))


@given(st.text(ALPHABET, min_size=16, max_size=16))
def test_an_invented_id_is_not_issued(text: str) -> None:
    # One of 2^32 would be.
    assert not api_key.is_issued(KeyId(text), b"a key that hypothesis does not know")


def test_what_has_another_length_is_not_made_into_a_key() -> None:
    with pytest.raises(ValueError, match="6 bytes"):
        api_key.new_id(b"", TAG_KEY)
    with pytest.raises(ValueError, match="32 bytes"):
        api_key.render(KeyId("0" * 16), b"")


@pytest.mark.parametrize("text", ["", "0" * 15, "0" * 17, "0" * 15 + "i", "0" * 15 + "A"])
def test_what_is_no_id(text: str) -> None:
    assert not api_key.is_id(text)
