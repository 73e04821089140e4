"""Which gRPC is known, and what is done with one that is not."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from licet.server import hybrid

ROOT = Path(__file__).parents[2]
KNOWN: Any = import_module("grpc._server")


def test_the_grpc_that_is_installed_is_the_one_that_is_known() -> None:
    """When this fails, read `grpc/_server.py` again: what `hybrid.py` says of it has changed."""
    assert hybrid.is_possible()


def test_the_grpc_that_is_asked_for_is_one_that_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (pinned,) = [d for d in project["project"]["dependencies"] if d.startswith("grpcio==")]
    assert pinned.removeprefix("grpcio==").startswith(hybrid.KNOWN)


@pytest.mark.parametrize("version", ["1.84.0", "1.86.0", "2.85.1", ""])
def test_another_version_is_not_known(version: str) -> None:
    assert hybrid.is_possible(KNOWN, f"{hybrid.KNOWN}1")
    assert not hybrid.is_possible(KNOWN, version)


@pytest.mark.parametrize(
    "other",
    [
        {"_status": None},
        {"_status": lambda rpc_event, state: (rpc_event, state)},
        {"_unary_response_in_pool": lambda rpc_event, **rest: (rpc_event, rest)},
        {"_Context": SimpleNamespace},
        {"_RPCState": SimpleNamespace},
        {"_RPCState": None},
    ],
    ids=["no-function", "other-parameters", "one-moved", "context", "state", "no-class"],
)
def test_another_grpc_is_noticed(other: dict[str, object]) -> None:
    assert not hybrid.is_possible(SimpleNamespace(**(vars(KNOWN) | other)), grpc.__version__)


def test_without_anything_that_is_known_nothing_is_possible() -> None:
    assert not hybrid.is_possible(SimpleNamespace(), grpc.__version__)


def test_what_is_no_call_of_a_hybrid_method_is_run_as_by_any_pool() -> None:
    with hybrid.HybridLane(1, "test", 100) as pool:
        assert pool.submit(lambda *given: given, 1, 2).result(10) == (1, 2)
        seven = tuple(range(7))
        assert pool.submit(lambda *given: given, *seven).result(10) == seven
