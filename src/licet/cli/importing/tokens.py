"""Tokens: a new API key for the owner of each that is live. Secrets cannot be taken over.

A key of licet has an id that its database has made, and 256 bits of its own; and nobody should have
a file with the secrets of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from licet.cli.importing import issuing
from licet.cli.importing.desk import Desk
from licet.cli.importing.issuing import LOST, Issued, Made
from licet.cli.importing.keys_file import KeysFile
from licet.cli.importing.records import Kind, TokenRecord
from licet.cli.importing.sending import each, violations_of
from licet.cli.importing.source import Read
from licet.cli.importing.tally import Fate
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import from_datetime, rfc3339, to_datetime
from licet.domain.names import Principal

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import ApiKey, Client

_THREADS: Final = 4


class _KeyMaker:
    """Makes the key of one token; see `issuing.Maker`."""

    def __init__(self, client: Client, record: TokenRecord, principal: Principal) -> None:
        self._client = client
        self._record = record
        self._principal = principal

    def make(self, name: str) -> Made:
        """See `Maker.make`."""
        expires_at = self._record.expires_at
        made = self._client.callers.create_key(
            name,
            self._record.scopes,
            principal=self._principal,
            expires_at=None if expires_at is None else to_datetime(expires_at),
        )
        return Made(made.key.key_id, made.token)

    def revoke(self, key_id: str) -> None:
        """See `Maker.revoke`."""
        self._client.callers.revoke_key(key_id, reason=LOST)


class TokenLoader:
    """Makes the keys of a file's tokens."""

    def __init__(self, desk: Desk, keys: KeysFile | None) -> None:
        """Write texts into a file; None is for a dry run.

        Raises:
            LicetCallError: which keys there are cannot be known.
        """
        self._desk = desk
        self._keys = keys
        self._earlier: dict[str, list[ApiKey]] = defaultdict(list)
        if len(desk.catalogue.places[Kind.TOKEN]):
            for key in desk.client.callers.list_keys(include_ended=True):
                if (mark := issuing.mark_of(key.name)) is not None:
                    self._earlier[mark[0]].append(key)

    def load(self) -> None:
        """Make them all.

        Raises:
            LicetCallError: licet does not answer; what was made stays. CommandError: see `Desk`.
        """
        for (read, maker), outcome in each(self._calls(), _THREADS):
            if isinstance(outcome, Exception):
                self._desk.reject(read, violations_of(outcome))
            else:
                self._write(read, maker, outcome)
                self._desk.settle(Kind.TOKEN, Fate.IMPORTED)

    def _calls(self) -> Iterator[tuple[tuple[Read, _KeyMaker], Callable[[], Made]]]:
        for place in self._desk.catalogue.places[Kind.TOKEN]:
            read = self._desk.source.again(place)
            try:
                call = self._call(read)
            except InvalidRequestError as exc:
                self._desk.reject(read, exc.violations)
                continue
            if call is not None:
                yield call

    def _call(self, read: Read) -> tuple[tuple[Read, _KeyMaker], Callable[[], Made]] | None:
        """Return how to make a token's key; None: nothing is left to do.

        Raises:
            InvalidRequestError: it is to be rejected.
        """
        record = _token(read)
        digest = issuing.digest_of(self._desk.name, Kind.TOKEN, record.id)
        earlier = self._earlier[digest]
        if record.holder.kind is Kind.AGENT or (
            not earlier and not record.is_live(self._desk.source.now)
        ):
            # An agent gets its token when it registers.
            self._desk.settle(Kind.TOKEN, Fate.ENDED)
            return None
        principal = self._desk.principal_of(read, record.holder)
        issued = list(map(_issued, earlier))
        if not issuing.is_needed(issued, self._keys):
            _check_present(record, principal, [key for key in earlier if key.end_reason != LOST])
            self._desk.settle(Kind.TOKEN, Fate.PRESENT)
            return None
        if not record.is_live(self._desk.source.now) or self._keys is None:
            self._desk.settle(Kind.TOKEN, Fate.IMPORTED if self._keys is None else Fate.ENDED)
            return None
        maker = _KeyMaker(self._desk.client, record, principal)
        name = issuing.name_of(digest, self._keys.run, record.name)
        lost = [one for one in issued if not one.is_ended]
        return (read, maker), partial(issuing.issue, maker, name, lost)

    def _write(self, read: Read, maker: _KeyMaker, made: Made) -> None:
        if self._keys is None:
            raise AssertionError  # a dry run makes none
        record = _token(read)
        note = partial(
            self._keys.add,
            made.key_id,
            made.text,
            token=record.id,
            name=record.name,
            caller=self._desk.principal_of(read, record.holder),
            scopes=record.scopes,
            expires_at=None if record.expires_at is None else rfc3339(record.expires_at),
        )
        issuing.written(self._keys, made, maker, note)


def _token(read: Read) -> TokenRecord:
    if not isinstance(read.record, TokenRecord):
        raise TypeError(f"line {read.place.number} is no token")
    return read.record


def _issued(key: ApiKey) -> Issued:
    mark = issuing.mark_of(key.name)
    return Issued(
        key_id=key.key_id,
        run="" if mark is None else mark[1],
        is_ended=key.ended_at is not None,
        is_lost=key.end_reason == LOST,
        is_used=key.last_used_at is not None or bool(key.replaces or key.replaced_by),
    )


def _check_present(record: TokenRecord, principal: Principal, keys: list[ApiKey]) -> None:
    """Check that the key of a token that was imported before is as the token.

    Raises:
        InvalidRequestError: it is not, or the token has been revoked in the old system only.
    """
    for key in keys:
        # A key that was rotated may have another end.
        expires_at = None if key.expires_at is None else from_datetime(key.expires_at)
        if (
            set(key.scopes) != set(record.scopes)
            or key.caller != principal
            or (not key.replaces and expires_at != record.expires_at)
        ):
            raise InvalidRequestError.of("id", "was imported before, and was not as it is here")
        if record.ended_at is not None and key.ended_at is None:
            raise InvalidRequestError.of(
                "revoked_at", f"is later than its import: revoke the API key {key.key_id} in licet"
            )
