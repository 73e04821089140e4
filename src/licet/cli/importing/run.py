"""An import from its beginning to its end; every step may be repeated by running it again."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, timedelta, timezone, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from licet.cli.errors import CommandError
from licet.cli.importing import audit_rows
from licet.cli.importing.agents import AgentLoader
from licet.cli.importing.desk import Desk
from licet.cli.importing.grants import GrantLoader
from licet.cli.importing.keys_file import KeysFile
from licet.cli.importing.progress import Step, progress
from licet.cli.importing.records import Kind
from licet.cli.importing.rejects import RejectFile
from licet.cli.importing.scan import Catalogue, scan
from licet.cli.importing.source import SourceFile
from licet.cli.importing.tally import Fate, Tally
from licet.cli.importing.tokens import TokenLoader
from licet.cli.importing.users import UserLoader
from licet.domain import names
from licet.domain.caller import Scope
from licet.domain.errors import InvalidRequestError
from licet.replica.clock import SystemClock

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Client, LicetCallError

SOURCE_BYTES: Final = 64
_OFFSET: Final = re.compile(r"([+-])([0-9]{2}):([0-9]{2})")
_MINUTES: Final = 60


@dataclass(frozen=True, slots=True)
class Options:
    """What is imported, and how.

    Attributes:
        path: of the file.
        name: of the old system.
        zone: of instants that have no offset; None: they are refused.
        rejects: where to write what is not imported; None: beside the file.
        keys_file: where to write the new credentials; None: there must be none.
        dry_run: whether nothing is to be changed.
    """

    path: Path
    name: str
    zone: tzinfo | None
    rejects: Path | None
    keys_file: Path | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did.

    Attributes:
        tally: the counts.
        rejects: where the rejected records are; None: there are none.
    """

    tally: Tally
    rejects: Path | None


def run(client: Client, options: Options, explain: Callable[[LicetCallError], str]) -> Report:
    """Import a file; `explain` says in a line why a call was not answered.

    Raises:
        CommandError: it was not imported to its end; what is in licet stays there.
        LicetCallError: nothing was done.
    """
    tally = Tally()
    with ExitStack() as stack:
        source = stack.enter_context(SourceFile(options.path, options.zone, SystemClock().now()))
        rejects = stack.enter_context(_rejects(options))
        rejects.check()
        if Scope.ADMIN not in client.callers.whoami().scopes:
            raise CommandError("an import needs a caller with the scope admin")
        step = stack.enter_context(progress())
        catalogue = scan(source, rejects, tally, step("reading bytes", source.size))
        source.check()
        desk = Desk(
            client=client,
            name=options.name,
            source=source,
            catalogue=catalogue,
            rejects=rejects,
            tally=tally,
            dry_run=options.dry_run,
            told=_Steps(step, catalogue),
        )
        keys = _keys_file(options, catalogue, stack)
        _load(desk, keys, step, explain)
        source.check()
    return Report(tally, rejects.path)


def source_name(text: str) -> str:
    """Check the name of an old system. Raises CommandError."""
    try:
        if names.label(text, "--source", SOURCE_BYTES):
            return text
    except InvalidRequestError as exc:
        raise CommandError(str(exc)) from None
    raise CommandError("--source is required")


def zone(text: str | None) -> tzinfo | None:
    """Return a time zone from its name or its offset. Raises CommandError."""
    if text is None:
        return None
    if text.upper() in {"UTC", "Z"}:
        return UTC
    found = _OFFSET.fullmatch(text)
    try:
        if found is None:
            return ZoneInfo(text)
        minutes = int(found[2]) * _MINUTES + int(found[3])
        return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CommandError(
            f"--timezone must be a name like Europe/Berlin that this machine knows, or an offset"
            f" like +02:00, not {text!r}"
        ) from None


def _rejects(options: Options) -> RejectFile:
    if options.rejects is not None:
        return RejectFile(options.rejects, is_chosen=True)
    return RejectFile(options.path.with_name(f"{options.path.name}.rejects"), is_chosen=False)


def _keys_file(options: Options, catalogue: Catalogue, stack: ExitStack) -> KeysFile | None:
    """Open the file of credentials, if there will be any. Raises CommandError."""
    if options.dry_run or not catalogue.credentials:
        return None
    if options.keys_file is None:
        raise CommandError(
            f"{options.path} has {catalogue.credentials} live tokens and agents: say with"
            " --keys-file where their new credentials are to go"
        )
    return stack.enter_context(KeysFile(options.keys_file, options.name))


def _load(
    desk: Desk, keys: KeysFile | None, step: Step, explain: Callable[[LicetCallError], str]
) -> None:
    """Load the records of each type after those that they are about."""
    from licet.client import LicetCallError  # noqa: PLC0415 - see the package

    try:
        try:
            UserLoader(desk).load()
            AgentLoader(desk, keys).load()
        finally:
            desk.reject_deferred()
        TokenLoader(desk, keys).load()
        grants = GrantLoader(desk, step("looking at capabilities in licet", 0))
        grants.load()
        audit_rows.load(desk, grants.ids)
    except LicetCallError as exc:
        raise CommandError(
            f"{explain(exc)}; {desk.tally.total(Fate.IMPORTED)} records were imported before that"
            " and stay: run the same command again to go on"
        ) from exc


class _Steps:
    """Shows how many records of a type have had their fate; a step begins with the first one."""

    def __init__(self, step: Step, catalogue: Catalogue) -> None:
        self._step = step
        self._catalogue = catalogue
        self._shown: dict[Kind, Callable[[int], None]] = {}
        self._done: dict[Kind, int] = {}

    def __call__(self, kind: Kind, count: int) -> None:
        if kind not in self._shown:
            total = len(self._catalogue.places[kind])
            self._shown[kind] = self._step(f"importing {kind} records", total)
        self._done[kind] = self._done.get(kind, 0) + count
        self._shown[kind](self._done[kind])
