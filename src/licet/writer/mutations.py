"""Mutations with a known outcome.

A lost answer is asked for again, and memory is not used until it came.

One failure is like no other: the connection breaks after a change was sent. It may be committed, be
committed still, or never be. The same mutation with the same request id is then sent again; the
database tells the first outcome or makes it so. Until one of them is known nothing is answered from
memory, and when the caller's deadline passes first, a thread of its own keeps asking.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from threading import Event, Thread
from typing import Final, Protocol

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from licet.app.ports import Applied, Capabilities, Deadline, Grant, Granted, Revoke, Revoked
from licet.domain.audit_event import AuditEvent
from licet.domain.capability import Capability
from licet.domain.errors import (
    ConflictError,
    DeadlineError,
    InvalidRequestError,
    LicetError,
    NotFoundError,
    OutcomeUnknownError,
    PreconditionError,
    RequestIdReusedError,
    UnavailableError,
)
from licet.domain.instant import Instant
from licet.domain.names import CapabilityId, Principal

_log: Final = logging.getLogger(__name__)

MUTATION_SECONDS: Final = 15.0
"""How long a mutation is tried when its caller set no earlier deadline."""
_RETRY: Final = retry_if_exception_type(
    (OutcomeUnknownError, UnavailableError, ConflictError, DeadlineError)
)

_REFUSALS: Final = {
    "PARENT_ENDED": "the parent capability has been revoked",
    "PARENT_EXPIRED": "the parent capability has expired",
}


class MutationStore(Protocol):
    """Applies mutations in the database; see `storage.mutations`."""

    def apply(self, mutation: Grant | Revoke, deadline: Deadline) -> Applied:
        """Apply one mutation, safely repeatable with the same request id."""
        ...

    def earlier(self, request_id: str, digest: bytes, deadline: Deadline) -> Applied | None:
        """Return what the mutation with this request id did, or None."""
        ...

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """Record a refused attempt."""
        ...


class Memory(Protocol):
    """The part of the capability sets that changes concern; see `replica.capability_sets`."""

    def evict(self, principals: Iterable[Principal] | None, revision: int) -> None:
        """Forget what these principals, or all for None, held before a revision."""
        ...

    def doubting(self) -> AbstractContextManager[None]:
        """Answer nothing from memory until the block is left."""
        ...


class MutationWriter:
    """See `ports.Mutations`."""

    def __init__(self, store: MutationStore, capabilities: Capabilities, memory: Memory) -> None:
        """Write through the store and evict from memory."""
        self._store = store
        self._capabilities = capabilities
        self._memory = memory
        self._closed = Event()

    def close(self) -> None:
        """Let the threads that still ask for outcomes end."""
        self._closed.set()

    def granted_before(self, request_id: str, digest: bytes, deadline: Deadline) -> Granted | None:
        """See `ports.Mutations.granted_before`."""
        earlier = self._store.earlier(request_id, digest, deadline)
        if earlier is None:
            return None
        self._memory.evict(earlier.principals, earlier.revision)
        _raise_refusal(earlier.status)
        return self._granted(earlier, deadline)

    def grant(self, grant: Grant, deadline: Deadline) -> Granted:
        """See `ports.Mutations.grant`."""
        applied = self._apply(grant, deadline)
        _raise_refusal(applied.status)
        if applied.outcome.get("replayed"):
            return self._granted(applied, deadline)
        capability = Capability(
            id=grant.capability_id,
            terms=grant.terms,
            parent_id=grant.parent_id,
            granted_by=grant.actor,
            granted_at=Instant(int(applied.outcome["granted_at"])),
            revision=applied.revision,
            end=None,
        )
        return Granted(capability, applied.revision)

    def revoke(self, revoke: Revoke, deadline: Deadline) -> Revoked:
        """See `ports.Mutations.revoke`."""
        applied = self._apply(revoke, deadline)
        _raise_refusal(applied.status)
        return Revoked(
            ended=applied.outcome["count"],
            ids=tuple(CapabilityId(identifier) for identifier in applied.outcome["ids"]),
            revision=applied.revision,
            confirmed=1,  # this replica, which is the only one and has evicted
            fenced=0,
            already_ended=applied.status == "already_ended",
        )

    def refuse(self, event: AuditEvent, deadline: Deadline) -> None:
        """See `ports.Mutations.refuse`."""
        self._store.refuse(event, deadline)

    def _granted(self, applied: Applied, deadline: Deadline) -> Granted:
        capability_id = CapabilityId(applied.outcome["capability_id"])
        return Granted(self._stored(capability_id, deadline), applied.revision)

    def _stored(self, capability_id: CapabilityId, deadline: Deadline) -> Capability:
        try:
            found = self._capabilities.find(capability_id, deadline)
        except (UnavailableError, DeadlineError) as exc:
            # The grant is committed: to say that nothing happened would be a lie.
            message = f"capability {capability_id} was granted, but could not be read back"
            raise OutcomeUnknownError(message) from exc
        if found is None:
            message = f"capability {capability_id} was granted and is not there"
            raise RuntimeError(message)
        return found

    def _apply(self, mutation: Grant | Revoke, deadline: Deadline) -> Applied:
        try:
            applied = self._store.apply(mutation, deadline)
        except OutcomeUnknownError:
            applied = self._settle(mutation, deadline)
        # Evicted before anyone hears of the change.
        self._memory.evict(applied.principals, applied.revision)
        return applied

    def _settle(self, mutation: Grant | Revoke, deadline: Deadline) -> Applied:
        doubt = self._memory.doubting()
        doubt.__enter__()  # left here, or by the thread that goes on asking
        try:
            applied = self._ask(
                mutation, deadline, stop_after_delay(deadline.remaining(MUTATION_SECONDS))
            )
        except LicetError as exc:
            _log.warning(
                "the outcome of mutation %s is unknown; memory is not used until it is",
                mutation.request_id,
            )
            Thread(
                target=self._keep_asking, args=(mutation, doubt), name="licet-outcome", daemon=True
            ).start()
            message = (
                f"the outcome is not known yet; ask again with request_id {mutation.request_id}"
            )
            raise OutcomeUnknownError(message) from exc
        except BaseException:
            # A bug, not an outage: asking again would meet it again. Memory is emptied, which is
            # safe in itself only once the change cannot commit any more, so the doubt stays.
            _log.exception("the outcome of mutation %s cannot be found out", mutation.request_id)
            raise
        self._memory.evict(applied.principals, applied.revision)
        doubt.__exit__(None, None, None)
        return applied

    def _keep_asking(self, mutation: Grant | Revoke, doubt: AbstractContextManager[None]) -> None:
        try:
            applied = self._ask(mutation, Deadline(lambda: None), stop_never)
        except Exception:  # noqa: BLE001 - a thread's own top
            # Either the process ends, or this is a bug; the doubt stays, so nothing is answered
            # from memory.
            _log.exception("the outcome of mutation %s stays unknown", mutation.request_id)
            return
        self._memory.evict(applied.principals, applied.revision)
        doubt.__exit__(None, None, None)
        _log.info("the outcome of mutation %s is known: %s", mutation.request_id, applied.status)

    def _ask(
        self, mutation: Grant | Revoke, deadline: Deadline, stop: stop_base | Callable[..., bool]
    ) -> Applied:
        for attempt in Retrying(
            retry=_RETRY,
            stop=lambda state: self._closed.is_set() or stop(state),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                return self._store.apply(mutation, deadline)
        message = "retrying ended without a result"
        raise AssertionError(message)

    def _sleep(self, seconds: float) -> None:
        self._closed.wait(seconds)


def _raise_refusal(status: str) -> None:
    """Raise the error of a mutation that the database refused."""
    match status:
        case "done" | "already_ended":
            return
        case "REQUEST_ID_REUSED":
            message = "request_id was used before with another body"
            raise RequestIdReusedError(message)
        case "NOT_FOUND":
            message = "there is no such capability"
            raise NotFoundError(message)
        case "PARENT_NOT_FOUND":
            message = "there is no such capability to delegate from"
            raise NotFoundError(message)
        case "ALREADY_EXPIRED":
            raise InvalidRequestError.of("expires_at", "must be in the future")
        case _:
            raise PreconditionError(status, _REFUSALS[status])
