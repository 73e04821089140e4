"""Credentials in place of those of the old system: each made once, its text written down once.

What licet has of an earlier import is told by the credentials' names, which end with a digest of
the record's type and id and with the run that made it. What was revoked since stays so. One is made
anew where its text is known to be lost: it is no line of the keys file of the run that made it,
and it was never used; the lost one is revoked first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from licet.cli.errors import CommandError
from licet.cli.importing.keys_file import KeysFile
from licet.cli.importing.records import NAME_BYTES

LOST: Final = "import: its text was lost with an answer"
_MARK: Final = re.compile(r" \[import ([0-9a-f]{16}) ([0-9a-f]{8})\]")
_MARK_BYTES: Final = 35
_ATTEMPTS: Final = 3


class Issued(NamedTuple):
    """A credential of an earlier import, as licet lists it.

    Attributes:
        key_id: its public id.
        run: that made it.
        is_ended: whether it was revoked.
        is_lost: whether that was because its text was lost.
        is_used: whether anybody has used or rotated it.
    """

    key_id: str
    run: str
    is_ended: bool
    is_lost: bool
    is_used: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A credential that was just made; without a text it was lost on the way."""

    key_id: str
    text: str = field(repr=False)


class Maker(Protocol):
    """Makes credentials of one kind."""

    def make(self, name: str) -> Made:
        """Make one. Raises LicetCallError."""
        ...

    def revoke(self, key_id: str) -> None:
        """End one because it is lost. Raises LicetCallError."""
        ...


def digest_of(source: str, kind: str, identifier: str) -> str:
    """Return what a credential's name says of its record."""
    body = json.dumps([source, kind, identifier])
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def name_of(digest: str, run: str, name: str) -> str:
    """Return the name of a credential: what people call it, as far as there is room, and a mark."""
    kept = name.encode()[: NAME_BYTES - _MARK_BYTES].decode(errors="ignore").rstrip()
    return f"{kept} [import {digest} {run}]"


def mark_of(name: str) -> tuple[str, str] | None:
    """Return the digest and the run of a credential's name; None: no import made it."""
    found = _MARK.search(name)
    return None if found is None or found.end() != len(name) else (found[1], found[2])


def is_needed(issued: Sequence[Issued], keys: KeysFile | None) -> bool:
    """Say whether a credential is to be made, for which these were made before."""
    left = [one for one in issued if not one.is_lost]
    if not left:
        return True
    if keys is None or any(keys.holds(one.key_id) for one in left):
        return False
    return all(keys.is_of(one.run) and not one.is_used and not one.is_ended for one in left)


def issue(maker: Maker, name: str, lost: Iterable[Issued]) -> Made:
    """Make a credential, after those that are lost were revoked.

    Raises:
        LicetCallError: its outcome is not known. CommandError: all answers get lost.
    """
    for one in lost:
        maker.revoke(one.key_id)
    for _ in range(_ATTEMPTS):
        made = maker.make(name)
        if made.text:
            return made
        maker.revoke(made.key_id)
    raise CommandError("the answers of licet get lost again and again: try again later")


def written(keys: KeysFile, made: Made, maker: Maker, note: Callable[[], None]) -> None:
    """Have a credential written down, or end it.

    Raises:
        CommandError: it could not be written. LicetCallError: and not be ended.
    """
    try:
        note()
    except CommandError:
        if not keys.holds(made.key_id):
            maker.revoke(made.key_id)
        raise
