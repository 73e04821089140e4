"""The gRPC edge: protobuf and gRPC end here."""

from __future__ import annotations
