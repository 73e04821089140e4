"""The operating system's account that PostgreSQL runs as.

PostgreSQL refuses to run as root. Started by root, it runs as an unprivileged account; started by
anyone else, as themselves.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from licet.storage.embedded.errors import EmbeddedPostgresError

# In order of preference: one that is licet's alone, PostgreSQL's, and the one that always exists.
_UNPRIVILEGED = ("licet", "postgres", "nobody")
_ROOT = 0


@dataclass(frozen=True, slots=True)
class Account:
    """Who owns the cluster's files and runs its processes."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The login name, or the number where there is none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def is_other(self) -> bool:
        """Whether this is not the account that licet runs as."""
        return self.uid != os.geteuid()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end as this account, with nothing of licet's privileges.

        Raises:
            OSError: the command could not be run, for example because this account may not.
        """
        return subprocess.run(  # noqa: S603 - a list of ours, no shell
            command,
            cwd="/",  # which every account can enter
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            user=self.uid if self.is_other else None,
            group=self.gid if self.is_other else None,
            extra_groups=() if self.is_other else None,
        )

    def can_enter(self, folder: Path) -> bool:
        """Tell whether every folder on the way to `folder` lets this account through."""
        if not self.is_other:
            return os.access(folder, os.X_OK)
        # Asked of the kernel, not computed from mode bits: access lists and mounts decide too.
        return self.run("/bin/sh", "-c", 'cd -- "$1"', "sh", folder).returncode == 0

    def own(self, path: Path) -> None:
        """Make `path`, which licet has just made, this account's."""
        if self.is_other:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def account_for(cluster: Path) -> Account:
    """Return the account for the cluster in `cluster`, which need not exist yet.

    Raises:
        EmbeddedPostgresError: the files are somebody else's, or root finds no account to use.
    """
    me = os.geteuid()
    try:
        owner = cluster.lstat()
    except FileNotFoundError:
        return _unprivileged() if me == _ROOT else Account(me, os.getegid())
    # An existing cluster stays with the account that made it, whatever accounts came since.
    account = Account(owner.st_uid, owner.st_gid)
    if account.uid == _ROOT or (me not in {_ROOT, account.uid}):
        raise EmbeddedPostgresError(
            f"The data in {cluster} belongs to the account {account.name}, so PostgreSQL cannot "
            f"run on it as {Account(me, os.getegid()).name}. Run licet as that account, or choose "
            "another data folder."
        )
    return account


def child_environment() -> dict[str, str]:
    """Return the environment for PostgreSQL's programs: none of licet's settings, nor libpq's."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {"LC_ALL": "C", "TZ": "UTC"}


def _unprivileged() -> Account:
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is no account to run it as: create one named "
        "licet, or run licet as an ordinary user."
    )
