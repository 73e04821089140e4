"""Use cases, one module each, and the ports that they need.

No I/O here, and no clock but the port.
"""

from __future__ import annotations
