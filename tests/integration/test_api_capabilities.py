"""GetCapability and ListCapabilities: trees, filters, pages that stay whole while others grant."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from licet.v1 import authorization_pb2 as pb
from licet.v1.decision_pb2 import DECISION_DENY
from tests.fakes.api import refused, struct
from tests.fakes.postgres import Cluster, Database, eventually
from tests.fakes.serving import Served, serving

UNKNOWN = "0199c5f0-6a5e-7cc3-98c4-dc0c0c07398f"
_INVALID = grpc.StatusCode.INVALID_ARGUMENT


def _get(served: Served, capability_id: str, *, tree: bool = False) -> pb.GetCapabilityResponse:
    request = pb.GetCapabilityRequest(capability_id=capability_id, include_tree=tree)
    return served.stub.GetCapability(request, timeout=10)


def _page(served: Served, **fields: Any) -> pb.ListCapabilitiesResponse:  # noqa: ANN401 - a field
    return served.stub.ListCapabilities(pb.ListCapabilitiesRequest(**fields), timeout=10)


def _ids(served: Served, **fields: Any) -> list[str]:  # noqa: ANN401 - a field
    """Read all pages."""
    ids: list[str] = []
    token = ""
    while True:
        page = _page(served, page_token=token, **fields)
        ids += [capability.id for capability in page.capabilities]
        token = page.next_page_token
        if not token:
            return ids


@pytest.fixture(scope="module")
def shared(cluster: Cluster, migrated_template: Database) -> Iterator[Served]:
    """Provide one server for the tests that leave nothing behind."""
    with cluster.database(migrated_template) as database, serving(database) as served:
        yield served


def test_a_tree_has_ancestors_up_to_the_root_and_descendants_parents_first(
    served: Served,
) -> None:
    def grant(parent: str, depth: int) -> str:
        fields = {"parent_capability_id": parent} if parent else {}
        return served.grant("agent:a", "read", "doc:x", delegation_depth=depth, **fields)

    root = grant("", 9)
    child = grant(root, 8)
    grand = [grant(child, 7), grant(child, 7)]
    great = [grant(grand[1], 6), grant(grand[0], 6)]
    sibling = grant(root, 8)
    served.stub.Revoke(pb.RevokeRequest(capability_id=great[0]), timeout=10)

    found = _get(served, grand[1], tree=True)
    assert [c.id for c in found.ancestors] == [child, root]
    assert [c.id for c in found.descendants] == [great[0]]
    assert found.descendants[0].HasField("ended_at")
    whole = _get(served, root, tree=True)
    order = [c.id for c in whole.descendants]
    assert sorted(order) == sorted([child, sibling, *grand, *great])
    assert all(
        order.index(c.id) > order.index(c.parent_id)
        for c in whole.descendants
        if c.parent_id != root
    )
    assert not whole.descendants_truncated
    assert list(whole.ancestors) == []
    plain = _get(served, root)
    assert (list(plain.ancestors), list(plain.descendants)) == ([], [])
    assert plain.capability == whole.capability


def test_a_tree_lists_a_thousand_descendants_and_says_that_there_are_more(
    served: Served, database: Database
) -> None:
    root = served.grant("agent:a", "read", "doc:x", delegation_depth=1)
    with database.connect() as admin:
        admin.execute(
            """INSERT INTO licet.capabilities (id, parent_id, principal, actions, resource,
                 granted_by, granted_at, delegation_depth, granted_revision, granted_event_id)
               SELECT gen_random_uuid(), %s, 'agent:b', '{read}', 'doc:x', 'caller:seed', now(), 0,
                 1, gen_random_uuid() FROM generate_series(1, 1001)""",
            [root],
        )
    found = _get(served, root, tree=True)
    assert (len(found.descendants), found.descendants_truncated) == (1000, True)


@pytest.mark.parametrize("call", [_get, lambda served, i: _get(served, i, tree=True)])
def test_an_unknown_capability_is_not_found(
    shared: Served, call: Callable[[Served, str], object]
) -> None:
    unknown = refused(lambda: call(shared, UNKNOWN))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


@pytest.mark.parametrize(
    "text", ["", "x", UNKNOWN[:-1], UNKNOWN.replace("-", ""), f"{{{UNKNOWN}}}"]
)
def test_what_is_no_uuid_is_refused(shared: Served, text: str) -> None:
    invalid = refused(lambda: _get(shared, text))
    assert (invalid.code, invalid.fields) == (_INVALID, ("capability_id",))


def test_every_filter_of_a_list_selects_exactly_what_matches(served: Served) -> None:
    root = served.grant("agent:a", "read", "doc:**", delegation_depth=1, session_id="s-1")
    child = served.grant("agent:b", "read", "doc:x/1", parent_capability_id=root, session_id="s-2")
    odd = served.grant("agent:b", "read", "doc:x.1")
    ended = served.grant("agent:a", "read", "doc:x/**", session_id="s-1")
    served.stub.Revoke(pb.RevokeRequest(capability_id=ended), timeout=10)
    brief = served.grant("agent:c", "read", "doc:x/1", ttl=Duration(nanos=100_000_000))
    assert eventually(
        lambda: served.authorize("agent:c", "read", "doc:x/1").decision == DECISION_DENY
    )
    living: dict[tuple[str, str] | tuple[()], list[str]] = {
        (): [root, child, odd],
        ("principal", "agent:b"): [child, odd],
        ("principal", "agent:c"): [],
        ("resource", "doc:x/*"): [child],
        ("resource", "doc:x.1"): [odd],
        ("resource", "doc:**"): [root, child, odd],
        ("granted_by", "caller:anonymous"): [root, child, odd],
        ("granted_by", "caller:other"): [],
        ("session_id", "s-1"): [root],
        ("parent_capability_id", root): [child],
    }
    for condition, expected in living.items():
        assert _ids(served, **_fields(condition)) == expected
    everything: dict[tuple[str, str] | tuple[()], list[str]] = {
        (): [root, child, odd, ended, brief],
        ("principal", "agent:c"): [brief],
        ("session_id", "s-1"): [root, ended],
        ("resource", "doc:x/**"): [child, ended, brief],
    }
    for condition, expected in everything.items():
        assert _ids(served, include_ended=True, **_fields(condition)) == expected
    assert _ids(served, principal="agent:b", resource="doc:x/**", session_id="s-2") == [child]
    assert _ids(served, principal="agent:b", session_id="s-1") == []


def _fields(condition: tuple[str, str] | tuple[()]) -> dict[str, str]:
    return {condition[0]: condition[1]} if condition else {}


def test_pages_are_complete_and_without_duplicates_while_others_grant(served: Served) -> None:
    before = [served.grant("agent:a", "read", f"doc:{i}") for i in range(60)]
    with ThreadPoolExecutor(2) as pool:
        for size in (1, 7, 1000):
            # Two at once, for as long as the list might take note of them.
            granting = [
                pool.submit(lambda: [served.grant("agent:a", "read", "doc:new") for _ in range(40)])
                for _ in range(2)
            ]
            ids = _ids(served, principal="agent:a", page_size=size)
            assert ids == sorted(set(ids))
            assert ids[: len(before)] == before
            for future in granting:
                before += future.result(20)
            before.sort()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7])
def test_the_last_page_has_no_token(served: Served, size: int) -> None:
    ids = [served.grant("agent:a", "read", "doc:x") for _ in range(6)]
    pages = [_page(served, page_size=size)]
    while token := pages[-1].next_page_token:
        pages.append(_page(served, page_size=size, page_token=token))
    assert [c.id for page in pages for c in page.capabilities] == ids
    assert len(pages) == -(-6 // size)


def test_pages_of_heavy_capabilities_and_of_their_events_fit_a_message(served: Served) -> None:
    # Numbers weigh little as JSON and much as protobuf: these are more than 4 MiB together.
    metadata = struct(numbers=[0] * 5400)
    ids = [served.grant("agent:a", "read", "doc:x", metadata=metadata) for _ in range(75)]
    assert _ids(served, page_size=1000) == ids
    request = pb.QueryAuditRequest(page_size=1000, event_types=["grant"])
    pages = [served.stub.QueryAudit(request, timeout=10)]
    while pages[-1].next_page_token:  # a slow machine makes more of them
        request.page_token = pages[-1].next_page_token
        pages.append(served.stub.QueryAudit(request, timeout=10))
    assert len(pages) > 1
    assert [e.capability_id for page in pages for e in page.events] == ids[::-1]


def _flipped(token: str, position: int) -> str:
    raw = bytearray(base64.urlsafe_b64decode(token))
    raw[position] ^= 1
    return base64.urlsafe_b64encode(raw).decode()


FORGERIES: dict[str, Callable[[str], str]] = {
    "garbage": lambda _: "x",
    "not-ascii": lambda _: "é" * 20,
    "empty-bytes": lambda _: "====",
    "shorter": lambda token: token[:-4],
    "longer": lambda token: "AAAA" + token,
    "huge": lambda token: token * 100,
    "version": lambda token: _flipped(token, 0),
    "filter": lambda token: _flipped(token, 5),
    "position": lambda token: _flipped(token, 20),
    "signature": lambda token: _flipped(token, -1),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_is_refused(shared: Served, forgery: str) -> None:
    for _ in range(2):
        shared.grant("agent:a", "read", "doc:x")
    token = _page(shared, page_size=1).next_page_token
    invalid = refused(lambda: _page(shared, page_token=FORGERIES[forgery](token)))
    assert (invalid.code, invalid.fields) == (_INVALID, ("page_token",))


@pytest.mark.parametrize(
    "other",
    [
        {"principal": "agent:b"},
        {"principal": "agent:a", "include_ended": True},
        {"principal": "agent:a", "session_id": "s-1"},
        {},
    ],
)
def test_a_token_serves_its_own_filter_only(served: Served, other: dict[str, Any]) -> None:
    for _ in range(3):
        served.grant("agent:a", "read", "doc:x")
    token = _page(served, principal="agent:a", page_size=1).next_page_token
    # Another size is not another filter.
    assert len(_page(served, principal="agent:a", page_size=2, page_token=token).capabilities) == 2
    invalid = refused(lambda: _page(served, page_token=token, **other))
    assert (invalid.code, invalid.fields) == (_INVALID, ("page_token",))


def test_a_token_of_the_audit_log_is_none_of_a_list(served: Served) -> None:
    for _ in range(2):
        served.grant("agent:a", "read", "doc:x")
    request = pb.QueryAuditRequest(page_size=1)
    token = served.stub.QueryAudit(request, timeout=10).next_page_token
    assert token
    assert refused(lambda: _page(served, page_token=token)).fields == ("page_token",)


@pytest.mark.parametrize("size", [-1, 1001, -(1 << 31), (1 << 31) - 1])
def test_a_page_size_out_of_range_is_refused(shared: Served, size: int) -> None:
    for call in (
        lambda: _page(shared, page_size=size),
        lambda: shared.stub.QueryAudit(pb.QueryAuditRequest(page_size=size), timeout=10),
    ):
        invalid = refused(call)
        assert (invalid.code, invalid.fields) == (_INVALID, ("page_size",))
