"""Opens the database for `licet audit verify`, and brings archives to the log that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from licet import config
from licet.app.findings import Report
from licet.app.sealed_log import AuditLogReader, Trust
from licet.app.verify import verify_range, verify_segment, verify_whole
from licet.cli.errors import CommandError
from licet.domain.archive import ArchiveError, read_archive
from licet.domain.checkpoint import Checkpoint
from licet.domain.errors import LicetError
from licet.domain.signed_note import VerifierKey
from licet.steward.signing import verify_ed25519
from licet.storage.embedded import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    data_folder,
    running_conninfo,
)
from licet.storage.verification import opened_log


class Verification:
    """One verification of one log, in one snapshot."""

    def __init__(self, log: AuditLogReader, trust: Trust, archives: Sequence[Path]) -> None:
        """Verify `log`; leaves that are in archives need not be in it."""
        self.report = Report()
        self._log = log
        self._trust = trust
        self._archives = archives

    def whole(self) -> tuple[Iterator[int], int]:
        """Return what verifies everything, and how many leaves there are."""
        archived = self._archived()
        total = sum(self._log.last_leaf(epoch) for epoch in self._log.epochs())
        return verify_whole(self._log, self._trust, self.report, archived), total

    def part(self, epoch: int, first: int, end: int) -> tuple[Iterator[int], int]:
        """Return what verifies leaves of an epoch, and how many there are."""
        kept = self._trust.kept
        if not epoch and kept is not None:
            of_kept = [e for e in self._log.epochs() if self._log.origin(e) == kept.origin]
            epoch = next(iter(of_kept), 0)
        epoch = epoch or self._log.head().epoch
        archived = self._archived()
        stop = end or self._log.last_leaf(epoch)
        slices = verify_range(self._log, self._trust, self.report, epoch, first, end, archived)
        return slices, max(stop - first, 0)

    def _archived(self) -> dict[int, list[tuple[int, int]]]:
        """Compare the archives with the tree, and return which leaves they hold of each epoch."""
        ranges: dict[int, list[tuple[int, int]]] = {}
        if not self._archives:
            return ranges
        epochs = {self._log.origin(epoch): epoch for epoch in self._log.epochs()}
        for path in self._archives:
            try:
                with path.open("rb") as file:
                    for segment, leaves in read_archive(file):
                        epoch = epochs.get(segment.origin)
                        if epoch is None:
                            raise CommandError(f"{path} is of another log, {segment.origin}")
                        found = verify_segment(self._log, self.report, epoch, segment, leaves)
                        ranges.setdefault(epoch, []).append(found)
            except (OSError, ArchiveError) as exc:
                raise CommandError(f"{path}: {exc}") from exc
        return {epoch: _joined(found) for epoch, found in ranges.items()}


@contextmanager
def opened(
    url: str | None, key: VerifierKey, kept: Checkpoint | None, archives: Sequence[Path]
) -> Iterator[Verification]:
    """Provide the verification of the log in a database: this one, or the configured one.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        with (
            _database_url(url) as address,
            opened_log(address, snapshot=True) as log,
        ):
            yield Verification(log, Trust(key, verify_ed25519, kept), archives)
    except (config.ConfigurationError, LicetError, EmbeddedPostgresError) as exc:
        raise CommandError(f"could not verify: {exc}") from exc


@contextmanager
def _database_url(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    # Nothing is served, so a public address, which `serve` may have to refuse, does not matter.
    settings = config.load(listen="127.0.0.1:0")
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    folder = data_folder(settings.data_dir)
    running = running_conninfo(folder)
    if running is not None:
        yield running
        return
    with EmbeddedPostgres(folder) as embedded:
        yield embedded.conninfo


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that follow each other: a batch may lie across two segments."""
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    return joined
