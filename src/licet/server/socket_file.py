"""The file of a Unix socket: claimed for one server, shown to clients, gone with that server.

gRPC binds a path by itself: it takes it from whoever listens there, opens it to whom the umask
says, and at its end removes what is there by then, a successor's as well. So it binds another one,
in a folder that is closed to others; and clients find what is bound there by a second name.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
from contextlib import suppress
from errno import ECONNREFUSED, ENOENT
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

from licet.domain.errors import UnavailableError

_log: Final = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
_CLOSED: Final = 0o700
_PASSING: Final = "shown"
"""What a socket is called on its way from its own name to the one that clients find."""
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022

_Identity: TypeAlias = tuple[int, int]


class SocketFile:
    """See the module. For one thread.

    Invariants:

    - While a process has claimed a path, no other licet does: it holds a lock on the folder.
    - What clients find has the mode that was set, from the first moment on.
    - There is no moment without anything to find between two processes that are shown in turn.
    """

    def __init__(self, path: Path, mode: int) -> None:
        """Name the path and who may open it; nothing is done yet."""
        self._path = path
        self._folder = path.with_name(f"{path.name}.d")
        self._mode = mode
        self._lock = -1
        self._shown: _Identity | None = None

    def claim(self) -> None:
        """Make this process the one that serves there, until `remove` or its end.

        Raises:
            UnavailableError: another one does; or the path cannot be used. Nothing was changed.
        """
        try:
            lock = self._locked_folder()
        except OSError as exc:
            message = f"LICET_SOCKET: cannot make {self._folder}: {exc.strerror}"
            raise UnavailableError(message) from exc
        try:
            self._check_free()
            self._clear()
        except OSError as exc:
            os.close(lock)
            raise UnavailableError(f"LICET_SOCKET: cannot use {self._folder}: {exc}") from exc
        except UnavailableError:
            os.close(lock)
            raise
        self._lock = lock
        self._warn_of_others()

    def bound(self, pid: int) -> Path:
        """Return where a process of this server has its socket."""
        return self._folder / str(pid)

    def target(self, pid: int) -> str:
        """Return that as an address for gRPC."""
        return f"unix:{quote(os.fsencode(self.bound(pid)))}"

    def permit(self, pid: int) -> None:
        """Let those open the socket of a process who may, once it is shown. Raises OSError."""
        self.bound(pid).chmod(self._mode)

    def show(self, pid: int) -> None:
        """Let clients find the socket of a process from now on, and no other one.

        Raises:
            UnavailableError: somebody else has taken the path meanwhile. Nothing was changed.
            OSError: the socket is not there, or cannot be shown. Nothing was changed.
        """
        found, new = _identity(self._path), _identity(self.bound(pid))
        if found is None or found != new:
            if found != self._shown:
                self._check_free()
            passing = self._folder / _PASSING
            passing.unlink(missing_ok=True)
            passing.hardlink_to(self.bound(pid))
            passing.replace(self._path)
        self._shown = new

    def shows(self, pid: int) -> bool:
        """Say whether clients find the socket of a process."""
        found = _identity(self._path)
        return found is not None and found == _identity(self.bound(pid))

    def tidy(self) -> None:
        """Forget what processes have left that were killed."""
        for left in self._folder.iterdir():
            if left.name.isdecimal() and not Path("/proc", left.name).exists():
                left.unlink(missing_ok=True)

    def remove(self) -> None:
        """Let clients find nothing any more, and let another process claim the path.

        What somebody else has put there stays.
        """
        if self._lock < 0:
            return
        # What cannot be removed is replaced by the next one that claims the path.
        with suppress(OSError):
            if self._shown is not None and _identity(self._path) == self._shown:
                self._path.unlink()
        with suppress(OSError, UnavailableError):
            self._clear()
            self._folder.rmdir()
        os.close(self._lock)
        self._lock = -1

    def _locked_folder(self) -> int:
        """Return a descriptor of the folder, with its lock. Raises OSError, UnavailableError."""
        for _ in range(_ATTEMPTS):
            self._folder.mkdir(_CLOSED, exist_ok=True)
            lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            is_ours = False
            try:
                is_ours = self._locks(lock)
            finally:
                if not is_ours:
                    os.close(lock)
            if is_ours:
                return lock
        raise self._taken()

    def _locks(self, folder: int) -> bool:
        """Lock the opened folder, and say whether that is now ours. Raises UnavailableError."""
        found = os.fstat(folder)
        if found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
            message = f"LICET_SOCKET: {self._folder} must be a folder for this account alone"
            raise UnavailableError(message)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Otherwise who had it before has just removed it, and it is no lock of anything.
        return _identity(self._folder) == (found.st_dev, found.st_ino)

    def _clear(self) -> None:
        """Remove what processes have left. Raises OSError, and UnavailableError: it is not ours."""
        found = list(self._folder.iterdir())
        for left in found:
            # `conf.d` beside `conf` is what other programs make, too, and full of files.
            if not left.is_socket() or not (left.name == _PASSING or left.name.isdecimal()):
                message = f"LICET_SOCKET: {left} is there, and it is no socket of a server's"
                raise UnavailableError(message)
        for left in found:
            left.unlink(missing_ok=True)  # by gRPC, perhaps

    def _check_free(self) -> None:
        """Raise UnavailableError unless nothing is there, or a socket that nobody listens on."""
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return
        except OSError as exc:
            message = f"LICET_SOCKET: cannot look at {self._path}: {exc.strerror}"
            raise UnavailableError(message) from exc
        if not stat.S_ISSOCK(found.st_mode):
            raise UnavailableError(f"LICET_SOCKET: {self._path} is there, and it is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            # Whatever else it says, that nobody listens it does not say.
            if probe.connect_ex(str(self._path)) not in {ECONNREFUSED, ENOENT}:
                raise self._taken()

    def _taken(self) -> UnavailableError:
        return UnavailableError(f"cannot listen on {self._path}: is another server running there?")

    def _warn_of_others(self) -> None:
        mode = self._path.parent.stat().st_mode
        if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
            _log.warning(
                "LICET_SOCKET: whoever may write to %s may put another server's socket there",
                self._path.parent,
            )


def _identity(path: Path) -> _Identity | None:
    """Return which file a path leads to, itself if that is a link; None: it leads to none."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
