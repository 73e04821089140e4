"""licet answers one question: may this principal do this action on this resource?"""

from __future__ import annotations

__version__ = "0.1.0"
