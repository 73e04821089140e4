"""Runs the stand-alone verifier of the audit log, as an auditor does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.fakes.audit_log import AuditLog, busy_leaves

VERIFIER: Final = Path(__file__).parents[2] / "tools" / "licet_audit_verifier.py"
LEAVES: Final = busy_leaves()
LOG: Final = AuditLog(LEAVES)
KEY: Final = LOG.key
SIZE: Final = len(LEAVES)


class Verification:
    """What the verifier reported."""

    def __init__(self, finished: subprocess.CompletedProcess[str]) -> None:
        self.status = finished.returncode
        self.stdout, self.stderr = finished.stdout, finished.stderr

    @property
    def report(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.stdout)
        return read

    @property
    def codes(self) -> set[str]:
        return {finding["code"] for finding in self.report["findings"]}


def run(*arguments: object) -> Verification:
    """Run it without the environment: whatever of licet is installed is not found by accident."""
    command = [sys.executable, "-I", str(VERIFIER), *map(str, arguments)]
    return Verification(subprocess.run(command, capture_output=True, text=True, check=False))


class Folder:
    """The files that an auditor was given."""

    def __init__(self, folder: Path, log: AuditLog = LOG) -> None:
        self._folder = folder
        self.log = log

    def file(self, name: str, content: str | bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def archive(
        self, *archives: bytes, note: str | None = None, more: tuple[object, ...] = ()
    ) -> Verification:
        """Verify archives against a checkpoint, that of the whole log by default."""
        files = [self.file(f"{n}.archive", packed) for n, packed in enumerate(archives)]
        checkpoint = self.file("checkpoint", self.log.note() if note is None else note)
        return run("archive", "--json", "--key", KEY, "--checkpoint", checkpoint, *more, *files)
