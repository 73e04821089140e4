"""Which gRPC is known, and what is done with one that is not."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from licet.server import known_grpc

ROOT = Path(__file__).parents[2]
KNOWN: Any = import_module("grpc._server")


def test_the_grpc_that_is_installed_is_the_one_that_is_known() -> None:
    """When this fails, read `grpc/_server.py` again: what is said of it has changed."""
    assert known_grpc.is_possible()


def test_the_grpc_that_is_asked_for_is_one_that_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (pinned,) = [d for d in project["project"]["dependencies"] if d.startswith("grpcio==")]
    assert pinned.removeprefix("grpcio==").startswith(known_grpc.KNOWN)


@pytest.mark.parametrize("version", ["1.84.0", "1.86.0", "2.85.1", ""])
def test_another_version_is_not_known(version: str) -> None:
    assert known_grpc.is_possible(KNOWN, f"{known_grpc.KNOWN}1")
    assert not known_grpc.is_possible(KNOWN, version)


@pytest.mark.parametrize(
    "other",
    [
        {"_request_registered_call": None},
        {"_request_registered_call": lambda state: state},
        {"_process_event_and_continue": lambda state, **rest: (state, rest)},
        {"_Context": SimpleNamespace},
        {"_ServerState": lambda *_: SimpleNamespace()},
        {"_ServerState": None},
        {"cygrpc": SimpleNamespace()},
    ],
    ids=[
        *("no-function", "other-parameters", "one-moved", "context", "state", "no-class"),
        "operations",
    ],
)
def test_another_grpc_is_noticed(other: dict[str, object]) -> None:
    assert not known_grpc.is_possible(SimpleNamespace(**(vars(KNOWN) | other)), grpc.__version__)


def test_without_anything_that_is_known_nothing_is_possible() -> None:
    assert not known_grpc.is_possible(SimpleNamespace(), grpc.__version__)
