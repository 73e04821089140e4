"""Time zones of the IANA database: of the one edition that licet is installed with.

Not that of the machine, so that all replicas agree on when it is nine o'clock.
"""

from __future__ import annotations

import re
from datetime import tzinfo
from functools import cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

_NAME: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,3}")


@cache
def _names() -> frozenset[str]:
    return frozenset((files("tzdata") / "zones").read_text("ascii").split())


def zone(name: str) -> tzinfo | None:
    """Return a time zone; None: there is none of that name."""
    if _NAME.fullmatch(name) is None or name not in _names():
        return None
    place = files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with place.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)
