"""Generated protobuf and gRPC code of package licet.v1, made by `make protos` and never edited."""

from __future__ import annotations
