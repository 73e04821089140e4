"""API keys: the text that a caller sends, and what is stored of it.

The text is `licet_<id>_<secret><check>`, all of it in lower-case Crockford base32 (no i, l, o, u):

    id      10 bytes, public: 6 of chance, then 4 that only who has the database's key can make
    secret  32 bytes of chance
    check   CRC-32 of everything before it: a typing error, or a text that only looks like a key, is
            told without a look-up, and whoever scans for secrets can tell as well

Invariant: an id that was not made with the database's key is refused before anything is looked up,
so a flood of invented keys reads nothing from the database and fills no memory.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from base64 import b32encode
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NewType

from licet.domain.caller import Identity, Limits, Scope
from licet.domain.instant import Instant
from licet.domain.names import Caller
from licet.domain.user import Role, within

KeyId = NewType("KeyId", str)
"""The public id of an API key."""

PREFIX: Final = "licet_"
ID_ENTROPY_BYTES: Final = 6
SECRET_BYTES: Final = 32
EXPECTED: Final = "an API key is required: `authorization: Bearer licet_...`"
"""What a caller is told whose credential is missing or does not count; nothing more."""
MAX_OVERLAP_SECONDS: Final = 30 * 86_400
"""How long a rotated key may go on beside the new one."""

_TAG_BYTES: Final = 4
_RFC4648: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_CROCKFORD: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_TRANSLATION: Final = str.maketrans(_RFC4648, _CROCKFORD, "=")
_TEXT: Final = re.compile(
    r"licet_([0-9a-hjkmnp-tv-z]{16})_([0-9a-hjkmnp-tv-z]{52})([0-9a-hjkmnp-tv-z]{7})"
)
_ID: Final = re.compile(r"[0-9a-hjkmnp-tv-z]{16}")


@dataclass(frozen=True, slots=True)
class Token:
    """The parts of a key's text. The secret is shown nowhere."""

    key_id: KeyId
    secret: str = field(repr=False)


class ApiKey(NamedTuple):
    """An API key as stored, without its secret.

    Attributes:
        key_id: see the module.
        name: for people.
        scopes: what it may use.
        caller: as whom it acts.
        limits: of what it may be about.
        created_at: when.
        created_by: the caller who made it.
        revision: with which it was made.
        expires_at: None: it does not.
        overlap_ends_at: it was rotated, and ends then if not before; None: it was not.
        replaces: the key that was rotated for it, or empty.
        replaced_by: the key that it was rotated for, or empty.
        ended_at: when it was revoked, with the next two; None: it was not.
        ended_by: by whom.
        end_reason: why.
        last_used_at: to the minute; None: never, as far as is known yet.
    """

    key_id: KeyId
    name: str
    scopes: tuple[Scope, ...]
    caller: Caller
    limits: Limits
    created_at: Instant
    created_by: Caller
    revision: int
    expires_at: Instant | None
    overlap_ends_at: Instant | None
    replaces: str
    replaced_by: str
    ended_at: Instant | None
    ended_by: str
    end_reason: str
    last_used_at: Instant | None

    @property
    def dies_at(self) -> Instant | None:
        """When it ends by itself."""
        ends = [at for at in (self.expires_at, self.overlap_ends_at) if at is not None]
        return min(ends) if ends else None

    def identity(self, roles: Collection[Role] | None = None) -> Identity:
        """Return the caller whom it authenticates; of a user with these roles, no more than they.

        None is nobody of whom licet keeps account: then the key has all of its scopes.
        """
        scopes = self.scopes if roles is None else within(self.scopes, roles)
        return Identity.of(self.caller, scopes, self.limits, self.key_id, self.expires_at)


def new_id(entropy: bytes, tag_key: bytes) -> KeyId:
    """Return an id of so much chance, with the tag that says that this licet made it."""
    if len(entropy) != ID_ENTROPY_BYTES:
        message = f"an id is made of {ID_ENTROPY_BYTES} bytes"
        raise ValueError(message)
    return KeyId(_base32(entropy + _tag(entropy, tag_key)))


def is_issued(key_id: KeyId, tag_key: bytes) -> bool:
    """Say whether an id was made with this key; that it is stored does not follow."""
    raw = _decoded(key_id)
    entropy, tag = raw[:ID_ENTROPY_BYTES], raw[ID_ENTROPY_BYTES:]
    return hmac.compare_digest(_tag(entropy, tag_key), tag)


def tag_key(database_key: bytes) -> bytes:
    """Return the key of the ids' tags, from a secret of the database that has other uses, too."""
    return hmac.digest(database_key, b"licet.api_keys.id", "sha256")


def own_caller(key_id: KeyId) -> Caller:
    """Return the caller that a key acts as when it is bound to no principal."""
    return Caller(f"key:{key_id}")


def render(key_id: KeyId, secret: bytes) -> str:
    """Return the text of a key: to be shown once."""
    if len(secret) != SECRET_BYTES:
        message = f"a secret is {SECRET_BYTES} bytes"
        raise ValueError(message)
    text = f"{PREFIX}{key_id}_{_base32(secret)}"
    return text + _check(text)


def parse(text: str) -> Token | None:
    """Take the text of a key apart; None: it is not one, or was not copied well."""
    found = _TEXT.fullmatch(text)
    if found is None or _check(text[: found.start(3)]) != found[3]:
        return None
    return Token(KeyId(found[1]), found[2])


def is_id(text: str) -> bool:
    """Say whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def digest(secret: str) -> bytes:
    """Return what is stored of a secret: SHA-256 of it as it is written in the key's text."""
    return hashlib.sha256(secret.encode()).digest()


def _tag(entropy: bytes, key: bytes) -> bytes:
    return hmac.digest(key, entropy, "sha256")[:_TAG_BYTES]


def _check(text: str) -> str:
    return _base32(zlib.crc32(text.encode()).to_bytes(4, "big"))


def _base32(data: bytes) -> str:
    return b32encode(data).decode().translate(_TRANSLATION)


def _decoded(key_id: KeyId) -> bytes:
    number = 0
    for character in key_id:
        number = number << 5 | _CROCKFORD.index(character)
    return number.to_bytes(ID_ENTROPY_BYTES + _TAG_BYTES, "big")
