"""The folder of an embedded PostgreSQL: its layout, its locks, its log, its socket.

    DATA_DIR/             the account's that runs licet
      licet.lock          held by the licet that uses the folder
      postgres.lock       inherited by its PostgreSQL: free when the last of its processes is gone
      cluster/            the data; PostgreSQL's account's, closed to all others
      socket/             where it listens; likewise
      postgres.log        what PostgreSQL said; postgres.log.1 before that
      postgresql-*/       a copy of the binaries, if the account cannot reach the wheel's

As root, nothing but `cluster` and `socket` belongs to PostgreSQL's account, so that account cannot
plant a link that root would follow.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from licet.storage.embedded.account import Account
from licet.storage.embedded.errors import EmbeddedPostgresError

_ROOT = 0
_LOG_BYTES = 8 * 1024 * 1024
# sockaddr_un.sun_path holds 104 to 108 bytes, by system, with the final NUL.
_SOCKET_PATH_BYTES = 103
PORT = 5432
"""Only names the socket: nothing listens on a network."""


def default_data_root() -> Path:
    """Return the folder under which licet keeps its data unless told otherwise."""
    if os.geteuid() == _ROOT:
        return Path("/var/lib/licet")
    return platformdirs.user_data_path("licet")


def data_folder(configured: Path | None) -> Path:
    """Return the folder that was configured, or else the default one for PostgreSQL's data."""
    return configured or default_data_root() / "postgresql"


def prepare(data_dir: Path) -> None:
    """Make `data_dir` if it is missing, and let PostgreSQL's account pass through it if root's.

    Raises:
        EmbeddedPostgresError: it is somebody else's.
    """
    as_root = os.geteuid() == _ROOT
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        path.chmod(0o711 if as_root else 0o700)
    if not as_root:
        return
    # Only our own folder is opened, and only to pass through: never one above it.
    status = data_dir.stat()
    if status.st_uid != _ROOT:
        owner = Account(status.st_uid, status.st_gid).name
        raise EmbeddedPostgresError(
            f"The data folder {data_dir} belongs to the account {owner}, and licet runs as root: "
            "run licet as that account, or choose another data folder."
        )
    data_dir.chmod(stat.S_IMODE(status.st_mode) | 0o011)


class FolderLock:
    """An advisory lock on a file: released by the kernel when its last holder is gone."""

    def __init__(self, path: Path) -> None:
        """Open the file, which stays for ever; see `try_acquire`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(path, flags, 0o600)

    def try_acquire(self) -> bool:
        """Take the lock, or return False when another process has it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def note_holder(self) -> None:
        """Write this process's id into the file, for whom the lock keeps out."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)

    def holder(self) -> str:
        """Return the process id that the holder wrote."""
        return os.pread(self.fd, 32, 0).decode("ascii", "replace").strip() or "unknown"

    def close(self) -> None:
        """Let go; a process that inherited the file still holds the lock."""
        os.close(self.fd)


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold `data_dir` against every other licet.

    Raises:
        EmbeddedPostgresError: another one has it.
    """
    lock = FolderLock(data_dir / "licet.lock")
    try:
        if not lock.try_acquire():
            raise EmbeddedPostgresError(
                f"The data folder {data_dir} is in use by another licet (process "
                f"{lock.holder()}): stop that one, or choose another data folder."
            )
        lock.note_holder()
        yield
    finally:
        lock.close()


@contextmanager
def socket_folder(data_dir: Path, account: Account) -> Iterator[Path]:
    """Provide the folder for the socket: closed to all but `account`, its path short enough."""
    folder = data_dir / "socket"
    if _can_hold_socket(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        account.own(folder)
        yield folder
        return
    # A new folder each time: a name that others can foretell could be theirs already.
    folder = Path(tempfile.mkdtemp(prefix="licet-"))
    if not _can_hold_socket(folder):
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="licet-", dir="/tmp"))
    account.own(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _can_hold_socket(folder: Path) -> bool:
    # libpq takes a comma in a host for the end of it, and "@" at its start for no path at all.
    name = os.fsencode(folder / f".s.PGSQL.{PORT}")
    return len(name) <= _SOCKET_PATH_BYTES and b"," not in name and name.isascii()


class Log:
    """The file that PostgreSQL's output goes to."""

    def __init__(self, path: Path) -> None:
        """Open it to append; a large one is set aside first, once."""
        self._path = path
        with suppress(FileNotFoundError):
            if path.stat().st_size > _LOG_BYTES:
                path.replace(path.with_name(f"{path.name}.1"))
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(path, flags, 0o600)
        self._start = os.fstat(self.fd).st_size

    def complaint(self) -> str:
        """Return the line written since it was opened that says best what went wrong."""
        text = os.pread(self.fd, 64 * 1024, self._start).decode("utf-8", "replace")
        return most_telling_line(text) or f"see {self._path}"

    def close(self) -> None:
        """Close it; PostgreSQL has its own."""
        os.close(self.fd)


def most_telling_line(output: str) -> str:
    """Return the last line with a fatal error, else with an error, else the last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for mark in ("PANIC:", "FATAL:", "rror:"):
        for line in reversed(lines):
            if mark in line:
                return line[line.index(mark) :] if mark != "rror:" else line
    return lines[-1] if lines else ""
