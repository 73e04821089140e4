"""Policy sets: put, read, rolled back, tested and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import uuid4

import grpc

from licet.client import messages, transport
from licet.client.replays import ReplayStep, steps
from licet.v1 import decision_pb2
from licet.v1 import policy_pb2 as pb
from licet.v1.policy_pb2_grpc import PolicyServiceStub

MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A version of the policies; the fields are those of the API. Lists have no document."""

    version: int
    document: str
    comment: str
    rollback_of: int
    put_at: datetime
    put_by: str
    revision: int


@dataclass(frozen=True, slots=True)
class PolicySetPut:
    """What a change of the policies did. `policy_count` is 0 for a rollback."""

    version: int
    revision: int
    policy_count: int
    replicas_confirmed: int
    replicas_fenced: int


@dataclass(frozen=True, slots=True)
class PolicyCaseResult:
    """What came out of a case; `passed`: it is what was expected."""

    name: str
    line: int
    passed: bool
    decision: str
    reason: str
    policy_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """What came out of cases, and the policies that none of them reached."""

    results: tuple[PolicyCaseResult, ...]
    not_reached: tuple[str, ...]


class Policies:
    """The calls about policies; `Client.policies`."""

    def __init__(self, channel: grpc.Channel, seconds: Callable[[float | None], float]) -> None:
        """Call over this channel; `seconds` gives each call its timeout."""
        self._stub = PolicyServiceStub(channel)
        self._seconds = seconds

    def put(
        self,
        document: str,
        *,
        comment: str = "",
        expected_version: int | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> PolicySetPut:
        """Have a document hold, on every replica when this returns.

        Args:
            document: YAML or JSON.
            comment: why.
            expected_version: the version that holds so far, if that matters.
            request_id: idempotency key; one is made when there is none.
            timeout: seconds, when not the client's.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = messages.build(
            pb.PutPolicySetRequest,
            document=document,
            comment=comment,
            expected_version=expected_version,
            request_id=request_id or uuid4().hex,
        )
        return _put(transport.change(self._stub.PutPolicySet, request, self._seconds(timeout)))

    def check(self, document: str, *, timeout: float | None = None) -> int:
        """Check that a document could be put, and return how many policies it has.

        Raises:
            LicetCallError: it could not, or was not checked.
        """
        request = messages.build(pb.PutPolicySetRequest, document=document, only_check=True)
        answer = transport.read(self._stub.PutPolicySet, request, self._seconds(timeout))
        return answer.policy_count

    def get(self, version: int = 0, *, timeout: float | None = None) -> PolicySet:
        """Read a version; 0 is the one that holds.

        Raises:
            LicetCallError: it was not answered, or there is none.
        """
        request = messages.build(pb.GetPolicySetRequest, version=version)
        answer = transport.read(self._stub.GetPolicySet, request, self._seconds(timeout))
        return _policy_set(answer.policy_set)

    def list_versions(
        self, *, page_size: int = MAX_PAGE, timeout: float | None = None
    ) -> Iterator[PolicySet]:
        """Iterate over the versions, the latest first; pages are read as they are needed.

        Raises:
            LicetCallError: while iterating, a page was not answered; `timeout` is for each page.
        """
        token = ""
        while True:
            request = pb.ListPolicySetsRequest(page_size=page_size, page_token=token)
            page = transport.read(self._stub.ListPolicySets, request, self._seconds(timeout))
            yield from map(_policy_set, page.policy_sets)
            token = page.next_page_token
            if not token:
                return

    def rollback(
        self,
        version: int,
        *,
        comment: str = "",
        expected_version: int | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> PolicySetPut:
        """Have the document of an earlier version hold again, as a new version.

        Raises:
            LicetCallError: see there for what is known then.
        """
        request = messages.build(
            pb.RollbackPolicySetRequest,
            version=version,
            comment=comment,
            expected_version=expected_version,
            request_id=request_id or uuid4().hex,
        )
        return _put(transport.change(self._stub.RollbackPolicySet, request, self._seconds(timeout)))

    def test(self, cases: str, document: str = "", *, timeout: float | None = None) -> PolicyTest:
        """Put cases to a document, or to the set that holds; nothing is stored.

        Raises:
            LicetCallError: they were not put.
        """
        request = messages.build(pb.TestPolicySetRequest, document=document, cases=cases)
        answer = transport.read(self._stub.TestPolicySet, request, self._seconds(timeout))
        return PolicyTest(tuple(map(_result, answer.results)), tuple(answer.not_reached))

    def replay(  # noqa: PLR0913 - one argument per field
        self,
        document: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        principal: str = "",
        max_decisions: int = 0,
        max_listed: int = 0,
        list_not_known: bool = False,
        timeout: float | None = None,
    ) -> Iterator[ReplayStep]:
        """Put the decisions on record to a document, or to the set that holds; nothing is stored.

        Args:
            document: YAML or JSON.
            since: decisions from then on, a day before `until` unless told.
            until: decisions before this instant; now unless told.
            principal: only those about this one.
            max_decisions: look at so many, the newest; 0: a million.
            max_listed: list so many; 0: a thousand.
            list_not_known: list those, too, of which it is not known how they would come out.
            timeout: seconds for all of it; unlimited if omitted.

        Raises:
            LicetCallError: while iterating, it failed, or ended before its last step.
        """
        fields = {"from": messages.timestamp(since, "since")}
        request = messages.build(
            pb.ReplayPolicySetRequest,
            document=document,
            to=messages.timestamp(until, "until"),
            principal=principal,
            max_decisions=max_decisions,
            max_listed=max_listed,
            list_not_known=list_not_known,
            **fields,
        )
        return steps(self._stub.ReplayPolicySet(request, timeout=timeout))


def _put(answer: pb.PutPolicySetResponse | pb.RollbackPolicySetResponse) -> PolicySetPut:
    return PolicySetPut(
        version=answer.version,
        revision=answer.revision,
        policy_count=answer.policy_count if isinstance(answer, pb.PutPolicySetResponse) else 0,
        replicas_confirmed=answer.replicas_confirmed,
        replicas_fenced=answer.replicas_fenced,
    )


def _policy_set(message: pb.PolicySet) -> PolicySet:
    return PolicySet(
        version=message.version,
        document=message.document,
        comment=message.comment,
        rollback_of=message.rollback_of,
        put_at=messages.instant(message.put_at),
        put_by=message.put_by,
        revision=message.revision,
    )


def _result(message: pb.PolicyCaseResult) -> PolicyCaseResult:
    allows = message.decision == decision_pb2.DECISION_ALLOW
    return PolicyCaseResult(
        name=message.name,
        line=message.line,
        passed=message.passed,
        decision="ALLOW" if allows else "DENY",
        reason=messages.reason_name(message.reason),
        policy_id=message.policy_id,
        detail=message.detail,
    )
