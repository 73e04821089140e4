"""Users: made with their roles, unless they were disabled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from licet.cli.importing.desk import Desk
from licet.cli.importing.records import Kind, UserRecord
from licet.cli.importing.sending import each, violations_of
from licet.cli.importing.source import Read
from licet.cli.importing.tally import Fate
from licet.domain.errors import InvalidRequestError

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import User, UserChange

_THREADS: Final = 4


class UserLoader:
    """Makes the users of a file."""

    def __init__(self, desk: Desk) -> None:
        """Find out which there are. Raises LicetCallError."""
        self._desk = desk
        self._there: dict[str, User] = {}
        self._emails: dict[str, str] = {}
        if len(desk.catalogue.places[Kind.USER]):
            for user in desk.client.callers.users.list(include_disabled=True):
                self._there[user.principal] = user
                self._emails[user.email] = user.principal

    def load(self) -> None:
        """Make them all.

        Raises:
            LicetCallError: licet does not answer; who was made stays. CommandError: see `Desk`.
        """
        for read, outcome in each(self._calls(), _THREADS):
            if isinstance(outcome, Exception):
                self._desk.reject(read, violations_of(outcome))
            else:
                self._be_holder(read, Fate.IMPORTED)

    def _calls(self) -> Iterator[tuple[Read, Callable[[], UserChange]]]:
        for place in self._desk.catalogue.places[Kind.USER]:
            read = self._desk.source.again(place)
            record = _user(read)
            try:
                fate = self._fate(record)
            except InvalidRequestError as exc:
                self._desk.reject(read, exc.violations)
                continue
            if fate is Fate.ENDED:
                self._desk.settle(Kind.USER, fate)
            elif fate is Fate.PRESENT or self._desk.dry_run:
                self._be_holder(read, fate)
            else:
                yield read, partial(self._make, record)

    def _fate(self, record: UserRecord) -> Fate:
        """Say what is to become of a user. Raises InvalidRequestError."""
        found = self._there.get(record.principal)
        if record.is_disabled:
            if found is not None and found.disabled_at is None:
                raise InvalidRequestError.of(
                    "disabled", f"is not so in licet: disable {record.principal} there"
                )
            return Fate.ENDED
        if found is None:
            other = self._emails.get(record.email)
            if other is not None:
                raise InvalidRequestError.of("email", f"is that of {other} in licet")
            return Fate.IMPORTED
        if (found.email, set(found.roles), found.name) != (
            *(record.email, set(record.roles), record.name),
        ):
            raise InvalidRequestError.of("principal", "is in licet, and not as it is here")
        return Fate.PRESENT

    def _make(self, record: UserRecord) -> UserChange:
        return self._desk.client.callers.users.create(
            record.principal, record.email, record.roles, name=record.name
        )

    def _be_holder(self, read: Read, fate: Fate) -> None:
        record = _user(read)
        self._desk.holders[Kind.USER, record.id] = record.principal
        self._desk.settle(Kind.USER, fate)


def _user(read: Read) -> UserRecord:
    if not isinstance(read.record, UserRecord):
        raise TypeError(f"line {read.place.number} is no user")
    return read.record
