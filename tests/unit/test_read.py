"""Reads: pages without gap or repetition that fit a message, and trees that do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from licet.app import read
from licet.app.audit_ports import AuditFilter, AuditPosition
from licet.app.ports import CapabilityFilter, Deadline, Tree
from licet.app.read import MAX_DESCENDANTS, PAGE_BYTES, Page, QueryAudit, ReadCapabilities
from licet.domain.audit_event import RecordedEvent, event_id, event_id_text
from licet.domain.canonical_json import EMPTY, JsonObject
from licet.domain.capability import Capability
from licet.domain.errors import InvalidRequestError, NotFoundError
from licet.domain.instant import Instant
from licet.domain.names import EventId
from licet.server import render
from licet.storage.tokens import SignedPageTokens
from tests.unit.builders import (
    HOLDER,
    NOW,
    PATIENT,
    StillClock,
    capability,
    event,
    identifier,
    terms,
)
from tests.unit.stores import Events, Stored

TOKENS = SignedPageTokens(b"k" * 32)
NO_FILTER = CapabilityFilter()
ZEROS = JsonObject(json.dumps({"a": [0] * 5_000}))
"""JSON that grows the most on its way into a message."""
WIDE = JsonObject(json.dumps({"a": "名" * 5_000}, ensure_ascii=False))
"""JSON of three bytes a character."""
MESSAGE_BYTES = 4 * 1024 * 1024


def capabilities(count: int, metadata: JsonObject = EMPTY) -> list[Capability]:
    return [capability(n, terms(metadata=metadata)) for n in range(1, count + 1)]


def recorded(number: int, metadata: JsonObject = EMPTY) -> RecordedEvent:
    # Two events share each instant, so that the id decides between them.
    return RecordedEvent(
        event_id_text(event_id(1, number)),
        event(occurred_at=Instant(NOW + number // 2), metadata=metadata),
    )


def reading(stored: Stored) -> ReadCapabilities:
    return ReadCapabilities(stored, TOKENS, StillClock())


def pages(
    ask: Callable[[str], Page[Capability]] | Callable[[str], Page[RecordedEvent]],
) -> Iterator[Page[Capability] | Page[RecordedEvent]]:
    token = ""
    while True:
        page = ask(token)
        yield page
        token = page.next_token
        if not token:
            return


@pytest.mark.parametrize(
    ("count", "size", "lengths"),
    [
        (0, 3, [0]),
        (1, 3, [1]),
        (3, 3, [3]),
        (4, 3, [3, 1]),
        (6, 3, [3, 3]),
        (7, 3, [3, 3, 1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_pages_have_everything_once_and_in_order(count: int, size: int, lengths: list[int]) -> None:
    all_of_them = capabilities(count)
    read_capabilities = reading(Stored(all_of_them))
    listed = list(pages(lambda token: read_capabilities.page(NO_FILTER, size, token, PATIENT)))
    assert [len(page.items) for page in listed] == lengths
    assert [item for page in listed for item in page.items] == all_of_them
    newest_first = [recorded(n) for n in range(count, 0, -1)]
    query = QueryAudit(Events(newest_first), TOKENS)
    found = list(pages(lambda token: query(AuditFilter(), size, token, PATIENT)))
    assert [len(page.items) for page in found] == lengths
    assert [item for page in found for item in page.items] == newest_first


def test_a_page_is_asked_for_with_one_more_than_it_shows() -> None:
    stored = Stored(capabilities(3))
    wanted = CapabilityFilter(principal=HOLDER)
    page = reading(stored).page(wanted, 2, "", PATIENT)
    reading(stored).page(wanted, 2, page.next_token, PATIENT)
    assert stored.asked == [(wanted, None, 3, NOW), (wanted, identifier(2), 3, NOW)]
    events = Events([recorded(3), recorded(2), recorded(1)])
    first = QueryAudit(events, TOKENS)(AuditFilter(), 2, "", PATIENT)
    QueryAudit(events, TOKENS)(AuditFilter(), 2, first.next_token, PATIENT)
    last = recorded(2)
    assert events.asked == [
        (AuditFilter(), None, 3),
        (AuditFilter(), AuditPosition(last.event.occurred_at, last.event_id), 3),
    ]


@pytest.mark.parametrize("pace", [-3, 0, 7])
def test_an_empty_page_can_have_a_successor_that_goes_on_where_it_ended(pace: int) -> None:
    rest = AuditPosition(Instant(NOW + 3), EventId("00000000-0000-0000-0000-000000000000"), pace)
    events = Events([recorded(3), recorded(2)], rest)
    query = QueryAudit(events, TOKENS)
    first = query(AuditFilter(), 2, "", PATIENT)
    assert (first.items, first.next_token != "") == ((), True)
    second = query(AuditFilter(), 2, first.next_token, PATIENT)
    assert second == ([recorded(3), recorded(2)], "")
    assert events.asked == [(AuditFilter(), None, 3), (AuditFilter(), rest, 3)]
    with pytest.raises(InvalidRequestError, match="page_token"):
        query(AuditFilter(principal=HOLDER), 2, first.next_token, PATIENT)


def test_a_token_is_good_for_its_list_and_its_filter_only() -> None:
    read_capabilities = reading(Stored(capabilities(3)))
    query = QueryAudit(Events([recorded(2), recorded(1)]), TOKENS)
    of_capabilities = read_capabilities.page(NO_FILTER, 1, "", PATIENT).next_token
    of_events = query(AuditFilter(), 1, "", PATIENT).next_token
    for wanted in (CapabilityFilter(principal=HOLDER), CapabilityFilter(include_ended=True)):
        with pytest.raises(InvalidRequestError, match="page_token"):
            read_capabilities.page(wanted, 1, of_capabilities, PATIENT)
    for other in (AuditFilter(principal=HOLDER), AuditFilter(until=NOW), AuditFilter(since=NOW)):
        with pytest.raises(InvalidRequestError, match="page_token"):
            query(other, 1, of_events, PATIENT)
    with pytest.raises(InvalidRequestError, match="page_token"):
        read_capabilities.page(NO_FILTER, 1, of_events, PATIENT)
    with pytest.raises(InvalidRequestError, match="page_token"):
        query(AuditFilter(), 1, of_capabilities, PATIENT)


@pytest.mark.parametrize("metadata", [ZEROS, WIDE])
def test_a_page_fits_a_message_whatever_the_metadata(metadata: JsonObject) -> None:
    count = 120
    read_capabilities = reading(Stored(capabilities(count, metadata)))
    listed = list(pages(lambda token: read_capabilities.page(NO_FILTER, 1000, token, PATIENT)))
    assert sum(len(page.items) for page in listed) == count
    assert len(listed) > 1
    first = read_capabilities.page(NO_FILTER, 1000, "", PATIENT)
    assert MESSAGE_BYTES // 8 < render.capabilities(first).ByteSize() < MESSAGE_BYTES
    query = QueryAudit(Events([recorded(n, metadata) for n in range(count, 0, -1)]), TOKENS)
    found = query(AuditFilter(), 1000, "", PATIENT)
    assert found.next_token
    assert MESSAGE_BYTES // 8 < render.audit(found, None, 0).ByteSize() < MESSAGE_BYTES


def test_a_page_of_long_names_fits_a_message() -> None:
    long = terms(
        " ".join(f"a{n:063}" for n in range(32)), "doc:" + "x" * 1020, session_id="s" * 128
    )
    read_capabilities = reading(Stored(capability(n, long) for n in range(1, 1002)))
    page = read_capabilities.page(NO_FILTER, 1000, "", PATIENT)
    assert page.next_token
    assert render.capabilities(page).ByteSize() < MESSAGE_BYTES


def test_a_page_has_an_item_even_if_that_is_too_large() -> None:
    huge = JsonObject("x" * PAGE_BYTES)
    listed = reading(Stored(capabilities(2, huge))).page(NO_FILTER, 9, "", PATIENT)
    assert [item.id for item in listed.items] == [identifier(1)]
    assert listed.next_token


def test_the_page_ends_where_the_message_would_be_too_long() -> None:
    # Metadata so long that exactly two fit, and then that two do not.
    one = read._capability_bytes(capability(1, terms()))  # noqa: SLF001 - the weights are its own
    room = PAGE_BYTES // 2 - one
    for more, fitting in ((0, 2), (1, 1)):
        metadata = JsonObject("x" * (room // 4 + len(EMPTY) + more))
        found = reading(Stored(capabilities(3, metadata))).page(NO_FILTER, 9, "", PATIENT)
        assert len(found.items) == fitting


def test_a_capability_is_read_alone_or_with_its_tree() -> None:
    one, two, three = capabilities(3, ZEROS)
    stored = Stored([two], Tree((one,), (three,), truncated=False))
    assert reading(stored).get(two.id, PATIENT, with_tree=False) == (two, ((), (), False))
    assert stored.asked == []
    found, tree = reading(stored).get(two.id, PATIENT, with_tree=True)
    assert found == two
    assert [c.id for c in tree.ancestors] == [one.id]
    assert [c.id for c in tree.descendants] == [three.id]
    assert not tree.truncated
    assert stored.asked == [(two.id, MAX_DESCENDANTS)]


def test_a_tree_comes_without_metadata_and_is_otherwise_whole() -> None:
    one, two, three = capabilities(3, ZEROS)
    stored = Stored([two], Tree((one,), (three,), truncated=True))
    _, tree = reading(stored).get(two.id, PATIENT, with_tree=True)
    assert tree == (
        (replace(one, terms=terms()),),
        (replace(three, terms=terms()),),
        True,
    )


def test_a_tree_that_is_cut_to_fit_a_message_says_so() -> None:
    wide = terms(" ".join(f"a{n:063}" for n in range(32)), "doc:" + "x" * 1020)
    root = capability(1, wide)
    descendants = tuple(capability(n, wide) for n in range(2, 1002))
    stored = Stored([root], Tree((), descendants, truncated=False))
    found, tree = reading(stored).get(root.id, PATIENT, with_tree=True)
    assert tree.truncated
    assert tree.descendants == descendants[: len(tree.descendants)]
    assert render.capability(found, tree).ByteSize() < MESSAGE_BYTES


def test_what_is_not_there_is_not_found() -> None:
    for with_tree in (False, True):
        with pytest.raises(NotFoundError, match=identifier(3)):
            reading(Stored([])).get(identifier(3), PATIENT, with_tree=with_tree)


@pytest.mark.parametrize(
    ("left", "remaining"),
    [(None, 5.0), (2.0, 2.0), (5.0, 5.0), (9.0, 5.0), (0.0, 0.0), (-1.0, 0.0)],
)
def test_a_deadline_is_between_nothing_and_the_most_that_is_waited(
    left: float | None, remaining: float
) -> None:
    assert Deadline(lambda: left).remaining(5.0) == remaining
