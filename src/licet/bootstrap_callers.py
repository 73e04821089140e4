"""The composition of who may call: the part of `bootstrap.py` that is about callers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from time import monotonic
from typing import Final

from licet.app.ports import Clock, Deadline
from licet.config import Settings
from licet.domain.api_key import KeyId
from licet.domain.audit_event import EventType, Result
from licet.domain.caller import ANONYMOUS
from licet.replica.api_keys import KEY_NAMES, ApiKeys, HeldKey, UsesThread
from licet.replica.capability_sets import Cached, Loader
from licet.replica.lease import Lease
from licet.server.authority import Authority
from licet.server.failures import FailedCalls, RecordFailures
from licet.server.identity import Authentication
from licet.spool.log import SpoolAuditLog
from licet.storage.api_keys import PostgresApiKeys

_KEY_BYTES: Final = 64 * 1024 * 1024
"""Memory for API keys, by estimate: some 30,000 in use at once."""
_UNKNOWN_KEYS: Final = 1000
"""Ids that this database made and has no key of: of a later state than one that was restored."""


def remembered(stored: PostgresApiKeys, lease: Lease, clock: Clock, tag_key: bytes) -> ApiKeys:
    """Return the API keys as a replica remembers them, under its lease."""
    held = Cached(_loader(stored), lease, _KEY_BYTES, _UNKNOWN_KEYS)
    return ApiKeys(held, clock, tag_key)


def authority(
    settings: Settings,
    api_keys: ApiKeys,
    stored: PostgresApiKeys,
    log: SpoolAuditLog,
    stack: ExitStack,
) -> Authority:
    """Start what lets callers in and keeps account of it; the stack stops it."""
    uses = UsesThread(api_keys.drain_used, stored, _deadline)
    stack.callback(uses.stop)
    uses.start()
    failures = FailedCalls(_recorder(log))
    stack.callback(failures.stop)
    failures.start()
    anonymous = ANONYMOUS if settings.admits_anonymous else None
    return Authority(Authentication(api_keys, anonymous), failures)


def _loader(stored: PostgresApiKeys) -> Loader[str, HeldKey]:
    def load(names: Collection[str], deadline: Deadline) -> Mapping[str, HeldKey]:
        ids = {KeyId(name.removeprefix(KEY_NAMES)): name for name in names}
        revision, found = stored.held(ids, deadline)
        held = {name: HeldKey.nobody(name, revision) for name in names}
        for key_id, (digest, key) in found.items():
            identity = None if key.ended_at is not None else key.identity()
            name = ids[key_id]
            held[name] = HeldKey(name, revision, digest, identity, key.dies_at)
        return held

    return load


def _recorder(log: SpoolAuditLog) -> RecordFailures:
    def record(who: str, why: str, count: int, seconds: float) -> None:
        facts = {"count": count, "seconds": seconds}
        log.append(EventType.AUTH_FAILED, why, facts, actor=who, result=Result.REFUSED)

    return record


def _deadline(seconds: float) -> Deadline:
    end = monotonic() + seconds
    return Deadline(lambda: end - monotonic())
