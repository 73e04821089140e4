"""Revoke: end one capability or all that match a filter, and always their descendants."""

from __future__ import annotations

import hashlib
import json
from typing import Final, NamedTuple

from licet.app.ports import Capabilities, Deadline, Ids, Mutations, Revoke, Revoked, RevokeTarget
from licet.domain.canonical_json import JsonObject, canonical
from licet.domain.errors import NotFoundError
from licet.domain.names import Caller

MAX_IDS: Final = 1000
"""How many ids of ended capabilities an answer lists."""


class RevokeCommand(NamedTuple):
    """What a caller asks for, its names checked.

    `request_id` is the caller's idempotency key, or empty.
    """

    target: RevokeTarget
    reason: str
    dry_run: bool
    request_id: str
    trace_id: str


class RevokeCapabilities:
    """Revokes capabilities."""

    def __init__(self, capabilities: Capabilities, mutations: Mutations, ids: Ids) -> None:
        """Compose the use case."""
        self._capabilities = capabilities
        self._mutations = mutations
        self._ids = ids

    def __call__(self, command: RevokeCommand, caller: Caller, deadline: Deadline) -> Revoked:
        """Revoke, or with `dry_run` say what a revocation would end.

        Raises:
            NotFoundError: there is no such capability; the attempt is on record unless it was a dry
                run. RequestIdReusedError: see `Mutations.revoke`, as for UnavailableError and
                OutcomeUnknownError.
        """
        if command.dry_run:
            return self._dry_run(command.target, deadline)
        return self._mutations.revoke(
            Revoke(
                request_id=command.request_id or self._ids.request_id(),
                digest=_digest(command, caller),
                target=command.target,
                reason=command.reason,
                actor=caller,
                trace_id=command.trace_id,
                facts=_facts(command),
            ),
            deadline,
        )

    def _dry_run(self, target: RevokeTarget, deadline: Deadline) -> Revoked:
        already_ended = False
        if target.capability_id is not None:
            capability = self._capabilities.find(target.capability_id, deadline)
            if capability is None:
                message = f"there is no capability {target.capability_id}"
                raise NotFoundError(message)
            already_ended = capability.end is not None
        found = self._capabilities.would_end(target, MAX_IDS, deadline)
        return Revoked(
            found.ended,
            found.ids,
            found.revision,
            confirmed=0,
            fenced=0,
            already_ended=already_ended,
        )


def _facts(command: RevokeCommand) -> JsonObject:
    target = {key: value for key, value in command.target._asdict().items() if value is not None}
    return canonical({"reason": command.reason, "target": target})


def _digest(command: RevokeCommand, caller: Caller) -> bytes:
    return hashlib.sha256(json.dumps(["revoke", caller, _facts(command)]).encode()).digest()
