"""Follows a file of policies in development: what is new in it is put.

It is read twice a second and compared, not watched: that works on every file system, and however an
editor replaces it. What is new counts when it was the same in two looks, so that nothing is put
that is half written. What cannot be used is said once, and what held before still holds; that the
file is empty or gone changes nothing either.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple

from licet.app.policy_file import PolicyFileError, printable
from licet.app.ports import Deadline
from licet.domain.errors import LicetError

_log: Final = logging.getLogger(__name__)

MAX_BYTES: Final = 512 * 1024
_LOOK_SECONDS: Final = 0.5
_PUT_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0


class _Found(NamedTuple):
    """What a look found: a text, or why there is none."""

    source: str
    refusal: str = ""


class PolicyFileThread:
    """See the module."""

    def __init__(
        self,
        path: Path,
        put: Callable[[str, Deadline], int | None],
        deadline: Callable[[float], Deadline],
        seconds: float = _LOOK_SECONDS,
    ) -> None:
        """Compose it; `start` starts it.

        Args:
            path: the file.
            put: has its content hold; see `app.policy_file.PutPolicyFile`.
            deadline: makes one of so many seconds.
            seconds: between two looks.
        """
        self._path = path
        self._put = put
        self._deadline = deadline
        self._seconds = seconds
        # The rest is of the thread that looks.
        self._seen: _Found | None = None
        self._settled: _Found | None = None
        self._failure = ""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-policy-file", daemon=True)

    def start(self) -> None:
        """Start to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def look(self) -> None:
        """Put what is new, if it can be used."""
        found = _found(self._path)
        is_same, self._seen = found == self._seen, found
        if not is_same or found == self._settled:
            return
        if found.refusal:
            self._refuse(found, found.refusal)
            return
        try:
            version = self._put(found.source, self._deadline(_PUT_SECONDS))
        except PolicyFileError as exc:
            self._refuse(found, str(exc))
        except LicetError as exc:
            # It is tried again; that it fails is said once.
            if str(exc) != self._failure:
                _log.warning("the policies of %s are not put yet: %s", self._name, exc)
            self._failure = str(exc)
        else:
            self._settled, self._failure = found, ""
            if version is not None:
                _log.info("the policies of %s hold as version %d", self._name, version)

    @property
    def _name(self) -> str:
        return printable(str(self._path))

    def _refuse(self, found: _Found, why: str) -> None:
        self._settled, self._failure = found, ""
        _log.error("the policies cannot be used, those that held still hold: %s", why)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # noqa: BLE001 - a thread's own top: a bug must be seen, not end it
                _log.exception("the policies of %s are not looked at", self._name)
            if self._stopping.wait(self._seconds):
                return


def read_policy_file(path: Path) -> str:
    """Return the text of a file.

    Raises:
        PolicyFileError: it cannot be read, is no file, too long, empty, or no UTF-8.
    """
    found = _found(path)
    if found.refusal:
        raise PolicyFileError(found.refusal)
    return found.source


def _found(path: Path) -> _Found:
    name = printable(str(path))
    try:
        content = _content(path)
    except OSError as exc:
        return _Found("", f"{name}: {exc.strerror}")
    try:
        text = "" if content is None else content.decode()
    except UnicodeDecodeError:
        return _Found("", f"{name} is not UTF-8")
    for is_so, what in (
        (content is None, "is no file"),
        (content is not None and len(content) > MAX_BYTES, f"has more than {MAX_BYTES} bytes"),
        (not text.strip(), "is empty"),
        ("\0" in text, "holds U+0000"),
    ):
        if is_so:
            return _Found("", f"{name} {what}")
    return _Found(text)


def _content(path: Path) -> bytes | None:
    # A pipe would be waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        return file.read(MAX_BYTES + 1)
