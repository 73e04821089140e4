"""Models of the replica protocol, and what runs a model checker over them (`make model`)."""

from __future__ import annotations
