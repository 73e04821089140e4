"""The rolling verifier: looks again and again at what is sealed, and says so when it was changed.

What was sealed of late is verified each minute, everything within a day. A slice at a time, and
with pauses in between, so that it never has more than its share of a core or of the database. What
it finds is a number for the metrics, a line in the process's log and an event in the audit log:
once, however often it is found again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, Protocol, TypeAlias

from licet.app.findings import Finding, Report
from licet.app.sealed_log import AuditLogReader, Ranges, Trust
from licet.app.verify import verify_range, verify_whole
from licet.domain.canonical_json import JsonValue
from licet.domain.signed_note import VerifierKey

_log: Final = logging.getLogger(__name__)

INCIDENT: Final = "NOT_AS_SEALED"
"""The reason of the events about what is found."""


class VerifiedLog(AuditLogReader, Protocol):
    """The audit log, read on a connection of its own, every statement for itself."""

    def recent_leaf(self, seconds: float) -> int:
        """Return the first leaf of the batches with events of the last so many seconds."""
        ...

    def has_incident(self, key: str) -> bool:
        """Tell whether a finding is on record already."""
        ...


Archived: TypeAlias = Callable[[], Mapping[int, Ranges]]
"""Returns of each epoch the leaves that need not be in the database. Raises LicetError."""
Record: TypeAlias = Callable[[str, Mapping[str, JsonValue]], None]
"""Stores an `audit.incident` event: its reason and its metadata. Raises LicetError."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often what is verified, in seconds.

    Attributes:
        recent_span: how much of the end of the log is verified again and again.
        recent_every: how often that is begun.
        whole_every: how often everything is begun.
        share: of its time that it works; the rest it waits.
    """

    recent_span: float = 3600.0
    recent_every: float = 60.0
    whole_every: float = 86_400.0
    share: float = 0.2


class RollingVerifier:
    """See the module. One thread drives it, by `step`."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it reads, trusts and tells, and how often
        self,
        open_log: Callable[[], AbstractContextManager[VerifiedLog]],
        trust: Trust,
        record: Record,
        rounds: Rounds | None = None,
        clock: Callable[[], float] = monotonic,
        archived: Archived = dict,
    ) -> None:
        """Compose it; the first steps verify everything.

        Args:
            open_log: opens the log; raises UnavailableError.
            trust: the key, whatever its name: it signs as whichever log it is given. Nobody keeps a
                checkpoint here, the state file does.
            record: stores what is found in the audit log.
            rounds: how often.
            clock: seconds that never step.
            archived: asked when a round begins; none unless told.
        """
        self._open = open_log
        self._trust = trust
        self._record = record
        self._rounds = rounds or Rounds()
        self._clock = clock
        self._archived = archived
        self._opened: AbstractContextManager[VerifiedLog] | None = None
        self._log: VerifiedLog | None = None
        self._recent: _Round | None = None
        self._whole: _Round | None = None
        self._recent_due = clock()
        self._whole_due = clock()
        self._told: set[str] = set()
        self.leaves = 0
        """How many leaves were verified, those that were verified again included."""
        self.findings = 0
        """How many findings there were, each counted once."""
        self.recent_rounds = 0
        """How often what was sealed of late was verified."""
        self.whole_rounds = 0
        """How often everything was verified."""
        self.whole_progress = 0
        """How many leaves the round through everything has behind it."""

    def step(self) -> float:
        """Verify a slice if any is due, and return how many seconds to wait before the next step.

        Raises:
            LicetError: the log cannot be read or what was found not be stored; `close`, and go on
                later.
        """
        began = self._clock()
        log = self._log_now()
        if self._recent is None and began >= self._recent_due:
            # Due again only once it has begun, which may fail.
            self._recent = self._recent_round(log)
            self._recent_due = began + self._rounds.recent_every
        if self._recent is not None:
            if not self._advance(self._recent):
                self._recent, self.recent_rounds = None, self.recent_rounds + 1
        elif self._whole is not None or began >= self._whole_due:
            if self._whole is None:
                self._whole = self._whole_round(log)
                self._whole_due = began + self._rounds.whole_every
            if not self._advance(self._whole):
                self._whole, self.whole_rounds = None, self.whole_rounds + 1
        else:
            return min(self._recent_due, self._whole_due) - began
        share = self._rounds.share
        return (self._clock() - began) * (1 - share) / share

    def close(self) -> None:
        """Give the connection back, and begin the rounds anew with the next step."""
        opened, self._opened, self._log = self._opened, None, None
        if self._recent is not None:
            self._recent_due = self._clock()
        if self._whole is not None:
            self._whole_due = self._clock()
        self._recent = self._whole = None
        if opened is not None:
            opened.__exit__(None, None, None)

    def _log_now(self) -> VerifiedLog:
        if self._log is None:
            self._opened = self._open()
            self._log = self._opened.__enter__()
        return self._log

    def _whole_round(self, log: VerifiedLog) -> _Round:
        report, archived = Report(), self._archived()
        return _Round(report, verify_whole(log, self._trust_in(log), report, archived))

    def _recent_round(self, log: VerifiedLog) -> _Round:
        report = Report()
        first = log.recent_leaf(self._rounds.recent_span)
        epoch = log.head().epoch
        archived = self._archived()
        trust = self._trust_in(log)
        return _Round(report, verify_range(log, trust, report, epoch, first, 0, archived))

    def _trust_in(self, log: VerifiedLog) -> Trust:
        key = self._trust.key
        if key is None:
            return self._trust
        return replace(self._trust, key=VerifierKey(log.origin(1), key.public_key))

    def _advance(self, round_: _Round) -> bool:
        """Take a slice; False when the round is over."""
        before = round_.report.leaves
        done = next(round_.slices, None)
        self.leaves += round_.report.leaves - before
        for finding in round_.report.findings[round_.told :]:
            self._tell(finding)
            round_.told += 1
        if round_ is self._whole:
            self.whole_progress = done or 0
        return done is not None

    def _tell(self, finding: Finding) -> None:
        if finding.key in self._told or self._log_now().has_incident(finding.key):
            self._told.add(finding.key)
            return
        _log.critical("the audit log was changed: %s: %s", finding.code, finding.message)
        facts: Mapping[str, JsonValue] = {
            "finding": finding.key,
            "code": str(finding.code),
            "what": finding.message,
            "epoch": finding.epoch,
            "leaf": finding.leaf,
            "subject": finding.subject,
        }
        self._record(INCIDENT, facts)
        self.findings += 1
        self._told.add(finding.key)


@dataclass(slots=True)
class _Round:
    """One round: what it has found, and what it has left."""

    report: Report
    slices: Iterator[int]
    told: int = 0
