"""What the verification of the audit log finds, and how it is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

MAX_FINDINGS: Final = 1000
"""How many findings are kept; all are counted."""


class Code(StrEnum):
    """What kind of finding it is; the values are shown and stored."""

    LEAF_ALTERED = "leaf.altered"
    LEAF_MISSING = "leaf.missing"
    ROW_INSERTED = "row.inserted"
    BATCH_GAP = "batch.gap"
    BATCH_IDS = "batch.ids"
    WRITER_GAP = "writer.gap"
    WRITER_REPEAT = "writer.repeat"
    WRITER_TAIL = "writer.tail"
    NODE_ALTERED = "node.altered"
    ROOT_MISMATCH = "root.mismatch"
    CHECKPOINT_ROOT = "checkpoint.root"
    CHECKPOINT_FORGED = "checkpoint.forged"
    CHECKPOINT_MISSING = "checkpoint.missing"
    CHECKPOINT_BEYOND = "checkpoint.beyond"
    TRUSTED_ROLLBACK = "trusted.rollback"
    TRUSTED_FORK = "trusted.fork"
    QUEUE_MISMATCH = "queue.mismatch"
    CAPABILITY_EVENT = "capability.event"
    EVENT_CAPABILITY = "event.capability"
    INCIDENT = "log.incident"
    ARCHIVE_MISMATCH = "archive.mismatch"


class Finding(NamedTuple):
    """Something that is not as it has to be.

    Attributes:
        code: of which kind.
        message: a sentence for people.
        epoch: of the log; 0 where it is of none.
        leaf: the index of the first leaf concerned; None where it is none.
        subject: the event or capability concerned; empty where it is none.
    """

    code: Code
    message: str
    epoch: int = 0
    leaf: int | None = None
    subject: str = ""

    @property
    def key(self) -> str:
        """What makes it the same finding when it is found again."""
        return f"{self.code} {self.epoch} {self.leaf} {self.subject}"


@dataclass(slots=True)
class Report:
    """What was verified, and what was found.

    Attributes:
        findings: the first of them.
        counts: how many there were of each code.
        leaves: how many events were compared with the tree.
        checkpoints: how many checkpoints were verified.
        capabilities: how many capabilities were compared with their events.
        archived: how many leaves were not in the database, and compared in an archive.
        explained: how many events are missing and the log itself says why.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Code] = field(default_factory=Counter)
    leaves: int = 0
    checkpoints: int = 0
    capabilities: int = 0
    archived: int = 0
    explained: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def add(self, finding: Finding) -> None:
        """Take a finding."""
        self.counts[finding.code] += 1
        last = self.findings[-1] if self.findings else None
        # Rows that were deleted together are one finding, however many they are.
        if last is not None and finding.code is Code.LEAF_MISSING and _continues(last, finding):
            return
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    def knows(self, subject: str) -> bool:
        """Tell whether something was found about this event or capability."""
        return any(finding.subject == subject for finding in self.findings)


def _continues(last: Finding, finding: Finding) -> bool:
    return last.code is finding.code and not finding.subject and last.message == finding.message
