"""What the text of a setting may be, and what it means; which there are is in `settings.py`.

Each function raises ValueError with the rule that is broken, to stand behind the setting's name.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Final

_LAST_PORT: Final = 65_535
# sun_path of unix(7) has 108 with its end; ".d/" and the id of a process come behind.
_SOCKET_BYTES: Final = 107 - len(".d/4194304")
# Linux has at most 8192 (NR_CPUS).
_LAST_CORE: Final = 8191
_CORES: Final = re.compile(r"(?P<first>[0-9]{1,4})(?:-(?P<last>[0-9]{1,4}))?", re.ASCII)
_CORES_RULE: Final = "must be numbers of cores and ranges of them, like 2,3 or 0-3"


def check_address(address: str) -> None:
    """Refuse what is not `host:port`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        message = "must be host:port, like 127.0.0.1:50051 or [::1]:50051"
        raise ValueError(message)


def check_bind(address: str, *, has_tls: bool) -> None:
    """Refuse to serve the world in plain text; nobody is served there without a credential anyway.

    Raises:
        ValueError: others reach the address, and there is no TLS.
    """
    if is_loopback(address) or has_tls:
        return
    message = (
        f"listen={address} is not loopback, and there is no TLS: set LICET_TLS_CERT_FILE and"
        " LICET_TLS_KEY_FILE; or LICET_INSECURE_BIND=true, only behind something that has it"
    )
    raise ValueError(message)


def is_loopback(address: str) -> bool:
    """Say whether `host:port` can be reached from this host only."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def socket_path(path: Path) -> Path:
    """Return the absolute path of a Unix socket, which the kernel wants to be short."""
    absolute = path.absolute()
    if len(os.fsencode(absolute)) > _SOCKET_BYTES:
        message = (
            f"must be at most {_SOCKET_BYTES} bytes, as an absolute path: the kernel takes 107, and"
            " each process has a socket of its own in a folder beside it"
        )
        raise ValueError(message)
    return absolute


def cores(text: str) -> tuple[int, ...]:
    """Return the cores that a list like `2,3` or `0-3,8` names, in its order."""
    named: list[int] = []
    for part in text.split(","):
        found = _CORES.fullmatch(part.strip())
        if found is None:
            raise ValueError(_CORES_RULE)
        first = int(found["first"])
        last = int(found["last"] or first)
        if not first <= last <= _LAST_CORE:
            raise ValueError(_CORES_RULE)
        named += range(first, last + 1)
    if len(set(named)) < len(named):
        message = "must name each core once: two workers on one would take turns"
        raise ValueError(message)
    return tuple(named)
