"""Faults at random, and a check of what the clients saw.

PostgreSQL is restarted, in a process of another account, while calls are under way: forking must
not touch gRPC, which reads this when it is imported.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
