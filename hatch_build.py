"""Builds a wheel whose hot path is compiled: see docs/decisions/0048-compiled-hot-path.md.

`HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 hatchling build --target wheel`, with mypy, its stubs and a C
compiler at hand; without that variable the wheel is of Python alone.
"""

from __future__ import annotations

import atexit
import shutil
from contextlib import chdir
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from typing_extensions import override

_PACKAGE = "licet"


class CompiledModules(BuildHookInterface):  # type: ignore[type-arg] # its argument is hatchling's own
    """Adds to a wheel the modules that pyproject.toml names, compiled beside their sources."""

    PLUGIN_NAME = "custom"

    @override
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile them. An editable installation gets none: they would hide what is edited."""
        if version == "editable":
            return
        folder, root = Path(mkdtemp(prefix="licet-compiled-")), Path(self.root)
        atexit.register(shutil.rmtree, folder)  # read until the wheel is whole
        shutil.copytree(root / "src" / _PACKAGE, folder / _PACKAGE)
        modules = [f"{_PACKAGE}/{name}" for name in self.config["modules"]]
        _compile(folder, modules, root)
        made = [path.relative_to(folder) for path in folder.rglob("*.so")]
        if len(made) != len(modules) + 1:  # each, and what they share
            raise RuntimeError(f"{len(modules)} modules became {len(made)} files")
        build_data["force_include"] |= {str(folder / path): str(path) for path in made}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def _compile(folder: Path, modules: list[str], root: Path) -> None:
    # Here, so that a wheel without compiled modules needs neither.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    with chdir(folder):
        extensions = mypycify(
            [f"--config-file={root / 'pyproject.toml'}", *modules],
            opt_level="3",
            debug_level="0",
            group_name=_PACKAGE,
        )
        command = build_ext(Distribution({"name": _PACKAGE, "ext_modules": extensions}))
        command.inplace = True
        command.ensure_finalized()
        command.run()
        shutil.rmtree("build")
