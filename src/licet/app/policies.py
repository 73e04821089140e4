"""Policy sets: put, rolled back, read, and tested before they hold."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from licet.app.administration import AdminChange, AdminChanges
from licet.app.policy_ports import PolicySetStore, ReadDocuments, StoredPolicySet
from licet.app.ports import Confirmation, Deadline, Ids, PageTokens
from licet.app.read import Page, cut
from licet.app.user_ports import UserStore, seen_of
from licet.domain import policy_cases
from licet.domain.audit_event import EventType
from licet.domain.caller import Identity
from licet.domain.canonical_json import JsonValue, canonical
from licet.domain.document import DocumentError
from licet.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    Violation,
)
from licet.domain.policy_cases import Case, Result
from licet.domain.policy_document import PolicyDocument
from licet.domain.policy_set import PolicySet

_LISTED: Final = hashlib.sha256(b"policy sets").digest()
_ITEM_BYTES: Final = 2048
_REFUSALS: Final = {
    "POLICY_SET_CHANGED": "another policy set holds than the one of expected_version",
}


class PutPolicySetCommand(NamedTuple):
    """A document that is to hold; `expected_version` is what holds so far, None: whatever it is."""

    source: str
    comment: str
    expected_version: int | None
    request_id: str
    only_check: bool


class RollbackCommand(NamedTuple):
    """The version whose document is to hold again."""

    version: int
    comment: str
    expected_version: int | None
    request_id: str


class PolicySetPut(NamedTuple):
    """What a change of the policies did. Version and revision are 0 when it was only checked."""

    version: int
    revision: int
    policies: int
    confirmation: Confirmation


class Tested(NamedTuple):
    """What came of cases, and the policies that none of them reached."""

    results: tuple[Result, ...]
    not_reached: tuple[str, ...]


class ManagePolicies:
    """See the module."""

    def __init__(  # noqa: PLR0913, PLR0917 - the ports
        self,
        changes: AdminChanges,
        sets: PolicySetStore,
        documents: ReadDocuments,
        ids: Ids,
        tokens: PageTokens,
        users: UserStore,
    ) -> None:
        """Compose the use cases."""
        self._changes = changes
        self._sets = sets
        self._documents = documents
        self._ids = ids
        self._tokens = tokens
        self._users = users

    def put(
        self, command: PutPolicySetCommand, caller: Identity, deadline: Deadline
    ) -> PolicySetPut:
        """Have a document hold, on every replica when this returns.

        Raises:
            ForbiddenError: the caller has limits, and policies are about everything.
            InvalidRequestError: the document cannot be used; nothing happened.
            PreconditionError: another set holds than expected; the attempt is on record.
            ConflictError: the caller's roles have changed meanwhile; nothing happened.
            RequestIdReusedError, UnavailableError, OutcomeUnknownError: see `AdminChanges.make`.
        """
        caller.check_unlimited("policies")
        found = self._read(command.source, "document")
        if command.only_check:
            return PolicySetPut(0, 0, len(found.policies), Confirmation(0, 0))
        details: dict[str, JsonValue] = {
            "source": command.source,
            "comment": command.comment,
            "expected_version": command.expected_version,
            "rollback_of": None,
        }
        kind = EventType.POLICY_PUT
        return self._make(kind, details, command.request_id, found, caller, deadline)

    def rollback(
        self, command: RollbackCommand, caller: Identity, deadline: Deadline
    ) -> PolicySetPut:
        """Have the document of an earlier version hold again, as a new version.

        Raises:
            NotFoundError: there is no such version. InvalidRequestError: this release cannot use
                it. Nothing happened. Others: as `put`.
        """
        caller.check_unlimited("policies")
        found = self._read(self.get(command.version, deadline).source, "version")
        details: dict[str, JsonValue] = {
            "source": None,
            "comment": command.comment,
            "expected_version": command.expected_version,
            "rollback_of": command.version,
        }
        kind = EventType.POLICY_ROLLED_BACK
        return self._make(kind, details, command.request_id, found, caller, deadline)

    def get(self, version: int | None, deadline: Deadline) -> StoredPolicySet:
        """Return a version; for None the one that holds.

        Raises:
            NotFoundError: there is none. UnavailableError, DeadlineError: see `PolicySetStore`.
        """
        found = self._sets.find(version, deadline)
        if found is None:
            which = "yet" if version is None else f"of version {version}"
            raise NotFoundError(f"there is no policy set {which}")
        return found

    def page(self, size: int, token: str, deadline: Deadline) -> Page[StoredPolicySet]:
        """Return one page of versions, the latest first, without their documents.

        Raises:
            InvalidRequestError: the token is not of this list.
            UnavailableError, DeadlineError: see `PolicySetStore`.
        """
        before = int(self._tokens.open(_LISTED, token)) if token else None
        found = self._sets.page(before, size + 1, deadline)
        return cut(
            found,
            size,
            lambda _: _ITEM_BYTES,
            lambda last: self._tokens.seal(_LISTED, str(last.version)),
        )

    def test(self, source: str, cases: str, deadline: Deadline) -> Tested:
        """Put cases to a document, or to the set that holds when it is empty; store nothing.

        Raises:
            InvalidRequestError: one of them cannot be used.
            NotFoundError: nothing holds yet. UnavailableError, DeadlineError: see `get`.
        """
        source = source or self.get(None, deadline).source
        policies = PolicySet(self._read(source, "document").policies)
        results = tuple(policy_cases.run(policies, case) for case in self._cases(cases))
        reached = policy_cases.reached(results)
        return Tested(results, tuple(p.id for p in policies.policies if p.id not in reached))

    def _make(  # noqa: PLR0913, PLR0917 - what a change is made of
        self,
        kind: EventType,
        details: dict[str, JsonValue],
        request_id: str,
        found: PolicyDocument,
        caller: Identity,
        deadline: Deadline,
    ) -> PolicySetPut:
        facts: dict[str, JsonValue] = {
            key: value
            for key, value in details.items()
            if key in {"comment", "rollback_of"} and value
        }
        source = details["source"]
        if isinstance(source, str):
            facts["source_sha256"] = hashlib.sha256(source.encode()).hexdigest()
        body = canonical({**details, "kind": kind, "caller": caller.caller})
        applied = self._changes.make(
            AdminChange(
                event_type=kind,
                request_id=request_id or self._ids.request_id(),
                digest=hashlib.sha256(body.encode()).digest(),
                actor=caller.caller,
                facts=canonical({**facts, "policies": len(found.policies)}),
                details={**details, "seen": seen_of(caller, self._users, deadline)},
            ),
            _raise_refusal,
            deadline,
        )
        return PolicySetPut(
            version=int(applied.outcome["version"]),
            revision=applied.revision,
            policies=len(found.policies),
            confirmation=applied.confirmation or Confirmation(0, 0),
        )

    def _read(self, source: str, field: str) -> PolicyDocument:
        try:
            return self._documents.policies(source)
        except DocumentError as exc:
            raise _invalid(field, exc) from None

    def _cases(self, source: str) -> tuple[Case, ...]:
        try:
            return self._documents.cases(source).cases
        except DocumentError as exc:
            raise _invalid("cases", exc) from None


def _invalid(field: str, error: DocumentError) -> InvalidRequestError:
    return InvalidRequestError(*(Violation(field, fault.describe()) for fault in error.faults))


def _raise_refusal(status: str) -> None:
    match status:
        case "done":
            return
        case "POLICY_SET_NOT_FOUND":
            raise NotFoundError("there is no policy set of that version")
        case _:
            raise PreconditionError(status, _REFUSALS[status])
