"""licet answers one question: may this principal do this action on this resource?"""

from __future__ import annotations

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Say whether the hot path runs as C (docs/decisions/0048-compiled-hot-path.md)."""
    spec = find_spec("licet.domain.decision")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
