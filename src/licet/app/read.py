"""Reads: capabilities, their delegation trees, and the audit log, page by page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Generic, NamedTuple, TypeVar

from licet.app.audit_ports import AuditEvents, AuditFilter, AuditPosition
from licet.app.ports import Capabilities, CapabilityFilter, Clock, Deadline, PageTokens, Tree
from licet.domain.audit_event import RecordedEvent
from licet.domain.canonical_json import EMPTY
from licet.domain.capability import Capability
from licet.domain.errors import NotFoundError
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId, EventId

MAX_DESCENDANTS: Final = 1000
PAGE_BYTES: Final = 3 * 1024 * 1024
"""Where a page ends: a client takes 4 MiB a message unless told otherwise."""
_ITEM_BYTES: Final = 2100
"""What an item weighs at most in a message, without its resource, actions and metadata."""
_STRUCT_FACTOR: Final = 4
"""How many bytes of a message a byte of JSON may become: `1, ` is a Value of 11 bytes."""

_EMPTY_TREE: Final = Tree((), (), truncated=False)
_Item = TypeVar("_Item")


class Page(NamedTuple, Generic[_Item]):
    """Some items and the token for those after them; empty when there are none."""

    items: Sequence[_Item]
    next_token: str


class ReadCapabilities:
    """Reads capabilities."""

    def __init__(self, capabilities: Capabilities, tokens: PageTokens, clock: Clock) -> None:
        """Compose the use case."""
        self._capabilities = capabilities
        self._tokens = tokens
        self._clock = clock

    def get(
        self, capability_id: CapabilityId, deadline: Deadline, *, with_tree: bool
    ) -> tuple[Capability, Tree]:
        """Return a capability and, when asked, its ancestors and descendants.

        Raises:
            NotFoundError: there is none with this id.
            UnavailableError, DeadlineError: see `Capabilities`.
        """
        capability = self._capabilities.find(capability_id, deadline)
        if capability is None:
            message = f"there is no capability {capability_id}"
            raise NotFoundError(message)
        if not with_tree:
            return capability, _EMPTY_TREE
        tree = self._capabilities.tree(capability_id, MAX_DESCENDANTS, deadline)
        ancestors = tuple(_without_metadata(c) for c in tree.ancestors)
        descendants = [_without_metadata(c) for c in tree.descendants]
        fitting = _fitting(descendants, _capability_bytes)
        is_cut = tree.truncated or fitting < len(descendants)
        return capability, Tree(ancestors, tuple(descendants[:fitting]), is_cut)

    def page(
        self, wanted: CapabilityFilter, size: int, token: str, deadline: Deadline
    ) -> Page[Capability]:
        """Return one page, oldest first.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `Capabilities`.
        """
        digest = _digest("capabilities", wanted)
        after = CapabilityId(self._tokens.open(digest, token)) if token else None
        found = self._capabilities.page(wanted, after, size + 1, self._clock.now(), deadline)
        return cut(found, size, _capability_bytes, lambda last: self._tokens.seal(digest, last.id))


class QueryAudit:
    """Reads the audit log."""

    def __init__(self, events: AuditEvents, tokens: PageTokens) -> None:
        """Compose the use case."""
        self._events = events
        self._tokens = tokens

    def __call__(
        self, wanted: AuditFilter, size: int, token: str, deadline: Deadline
    ) -> Page[RecordedEvent]:
        """Return one page, newest first; it may be short or empty and still have a successor.

        Every event stored before the first page was read is on exactly one page: the order is total
        and never changes, and what is stored later cannot shift what a position means. What is
        stored later may be on one.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `AuditEvents`.
        """
        digest = _digest("audit", wanted)
        before = _position(self._tokens.open(digest, token)) if token else None
        found, rest = self._events.page(wanted, before, size + 1, deadline)

        def seal(position: AuditPosition) -> str:
            parts = (part for part in position if part is not None)
            return self._tokens.seal(digest, " ".join(map(str, parts)))

        page = cut(
            found,
            size,
            _event_bytes,
            lambda last: seal(AuditPosition(last.event.occurred_at, last.event_id)),
        )
        if rest is None or page.next_token:
            return page
        return Page(page.items, seal(rest))


def _position(text: str) -> AuditPosition:
    occurred_at, event_id, *pace = text.split(" ")
    return AuditPosition(
        Instant(int(occurred_at)), EventId(event_id), int(pace[0]) if pace else None
    )


def cut(
    found: Sequence[_Item], size: int, weigh: Callable[[_Item], int], seal: Callable[[_Item], str]
) -> Page[_Item]:
    """Cut what was found, one more than a page if there is more, to a page that fits a message."""
    count = _fitting(found[:size], weigh)
    return Page(found[:count], seal(found[count - 1]) if count < len(found) else "")


def _fitting(items: Sequence[_Item], weigh: Callable[[_Item], int]) -> int:
    """Return how many of the items fit a message, at least one if there is one."""
    weight = 0
    for position, item in enumerate(items):
        weight += weigh(item)
        if position and weight > PAGE_BYTES:
            return position
    return len(items)


def _without_metadata(capability: Capability) -> Capability:
    return replace(capability, terms=replace(capability.terms, metadata=EMPTY))


def _capability_bytes(capability: Capability) -> int:
    terms = capability.terms
    names = len(terms.resource.encode()) + sum(len(action) + 2 for action in terms.actions)
    return _ITEM_BYTES + names + _STRUCT_FACTOR * len(terms.metadata.encode())


def _event_bytes(recorded: RecordedEvent) -> int:
    event = recorded.event
    return (
        _ITEM_BYTES + len(event.resource.encode()) + _STRUCT_FACTOR * len(event.metadata.encode())
    )


def _digest(what: str, wanted: AuditFilter | CapabilityFilter) -> bytes:
    return hashlib.sha256(json.dumps([what, *wanted]).encode()).digest()
