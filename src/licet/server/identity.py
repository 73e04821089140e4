"""Who calls.

Callers are not authenticated yet, so every one of them is the same, and the server binds loopback
only.
"""

from __future__ import annotations

from typing import Final

from licet.domain.names import Caller

ANONYMOUS: Final = Caller("caller:anonymous")
