"""Random sequences of grants, delegations, revocations, expiries and decisions against a model.

A real licet answers, over gRPC and on a real PostgreSQL; one for the whole run. Each sequence has
principals and a resource type of its own, so that those before it do not matter.

The model knows no caches, indexes or transactions: it looks at every capability. Its clock is the
host's, as the server's is. The server reads it at some time between sending and receiving, so an
answer is right if the model gives it at an instant between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import count
from threading import Event
from typing import Final

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from licet.domain.capability import EndCause
from licet.domain.capability_set import NEVER
from licet.domain.decision import Reason, Request
from licet.domain.instant import Instant
from licet.domain.names import Action, CapabilityId, Principal, Resource
from licet.replica.clock import SystemClock
from licet.v1 import authorization_pb2 as pb
from licet.v1 import capability_pb2, decision_pb2
from tests.fakes.postgres import Database
from tests.fakes.serving import Served, failure, serving
from tests.properties.models import RESOURCES, Known, expected, is_inside, matches, refusal
from tests.properties.random_grants import (
    SOON,
    Life,
    Pick,
    Wanted,
    actions,
    filters,
    holders,
    picks,
    resources,
    wishes,
)

_CLOCK: Final = SystemClock()
_ROUND_TRIP: Final = 250_000
"""Microseconds that the server's question for the database's time may take on a loaded machine."""
_SEQUENCES: Final = count()


def micros(message: Message, name: str, default: int | None = None) -> int | None:
    """Return the instant in a field, or the default if it is unset."""
    at: Timestamp = getattr(message, name)
    return at.ToMicroseconds() if message.HasField(name) else default


class LicetMachine(RuleBasedStateMachine):
    """Drives one server with one sequence."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.stub = served.stub
        self.number = next(_SEQUENCES)
        self.known: list[Known] = []

    # Names of this sequence.

    def holder(self, number: int) -> Principal:
        return Principal(f"agent:{self.number}-{number}")

    def sent(self, name: str) -> str:
        """Return a resource or a pattern of the small world under this sequence's type."""
        return f"t{self.number}:{name.removeprefix('x:')}"

    def instants(self, before: int, *boundaries: int | None) -> list[Instant]:
        """Return the instants since `before` at which the model may give different answers.

        The server knows the database's clock to within a round trip, and takes what is about to
        expire for expired.
        """
        after = _CLOCK.now() + _ROUND_TRIP
        between = {b for b in boundaries if b is not None and before < b <= after}
        return [Instant(instant) for instant in sorted({before, *between, after})]

    # Changes.

    @initialize(wanted=wishes)
    def begin(self, wanted: Wanted) -> None:
        self.grant(wanted._replace(life=Life()))

    @rule(wanted=wishes)
    def grant(self, wanted: Wanted) -> None:
        request = self.request(wanted)
        before = _CLOCK.now()
        code, granted = self.try_to_grant(request)
        if granted is None:
            self.check_over_before_granted(code, before, wanted.life)
        else:
            self.remember(request, granted, wanted.resource, None)

    @rule(wanted=wishes, chain=st.lists(holders, min_size=2, max_size=3))
    def grant_a_chain(self, wanted: Wanted, chain: list[int]) -> None:
        """Grant, and delegate from one to the next, so that there is something to cascade to."""
        self.grant(wanted._replace(depth=len(chain), life=Life()))
        for holder in chain:
            child = wanted._replace(holder=holder, life=Life())
            self.delegate_from(self.known[-1], child, same=True)

    @rule(parent=picks, wanted=wishes, same=st.booleans())
    def delegate(self, parent: Pick, wanted: Wanted, *, same: bool) -> None:
        self.delegate_from(parent(self.known), wanted, same=same)

    def delegate_from(self, parent: Known, wanted: Wanted, *, same: bool) -> None:
        if same:
            # Often enough a delegation must be inside its parent to be of use.
            depth = max(parent.depth - 1, 0)
            wanted = wanted._replace(actions=parent.actions, resource=parent.resource, depth=depth)
        request = self.request(wanted)
        request.parent_capability_id = parent.id
        before = _CLOCK.now()
        code, granted = self.try_to_grant(request)
        ttl, resource = wanted.life.ttl, wanted.resource
        boundaries = [parent.expires_at]
        if ttl is not None and parent.expires_at is not None:
            boundaries += [parent.expires_at - ttl, parent.expires_at - ttl + 1]
        right = {
            refusal(parent, self.planned(parent, request, resource, now), now)
            for now in self.instants(before, *boundaries)
        }
        if code not in right:
            self.check_over_before_granted(code, before, wanted.life)
        elif granted is not None:
            self.remember(request, granted, resource, parent)

    def try_to_grant(self, request: pb.GrantRequest) -> tuple[str, pb.GrantResponse | None]:
        """Return the reason of a refusal, or nothing and what was granted."""
        try:
            return "", self.stub.Grant(request)
        except grpc.RpcError as error:
            return failure(error).reason, None

    def check_over_before_granted(self, code: str, before: int, life: Life) -> None:
        """Check the refusal of a time that was over before it came to the database."""
        assert code == "INVALID_REQUEST"
        assert life.ttl is not None
        assert _CLOCK.now() >= before + life.ttl

    @rule(pick=picks, dry_run=st.booleans())
    def revoke(self, pick: Pick, *, dry_run: bool) -> None:
        capability = pick(self.known)
        ending = capability.living_subtree()
        response = self.stub.Revoke(
            pb.RevokeRequest(capability_id=capability.id, dry_run=dry_run, reason="r")
        )
        assert response.already_ended == (not ending)
        self.check_ended(response, {capability.id}, ending, dry_run=dry_run)

    @rule(chosen=filters, dry_run=st.booleans())
    def revoke_by_filter(self, chosen: tuple[int | None, str | None], *, dry_run: bool) -> None:
        holder, resource = chosen
        roots = [
            k
            for k in self.known
            if k.ended_at is None
            and (holder is None or k.principal == self.holder(holder))
            and (resource is None or is_inside(k.resource, resource))
        ]
        ending = {k.id: k for root in roots for k in root.living_subtree()}
        message = pb.RevokeFilter(
            principal="" if holder is None else self.holder(holder),
            resource="" if resource is None else self.sent(resource),
        )
        response = self.stub.Revoke(pb.RevokeRequest(filter=message, dry_run=dry_run, reason="r"))
        assert not response.already_ended
        self.check_ended(response, {k.id for k in roots}, [*ending.values()], dry_run=dry_run)

    @rule(wanted=wishes)
    def outlive(self, wanted: Wanted) -> None:
        """Use a capability, so that it is in memory, and try again when it has expired."""
        self.grant(wanted._replace(life=Life(ttl=SOON)))
        action = wanted.actions[0].replace("*", "c")
        resource = next(r for r in RESOURCES if matches(wanted.resource, r))
        self.authorize(wanted.holder, action, resource)
        self.wait_for_an_expiry()
        self.authorize(wanted.holder, action, resource)

    @rule()
    def wait_for_an_expiry(self) -> None:
        now = _CLOCK.now()
        left = [k.expires_at - now for k in self.known if k.expires_at and k.ended_at is None]
        Event().wait(min((micros for micros in left if 0 < micros <= SOON), default=0) / 1_000_000)

    # Questions.

    @rule(holder=holders, action=actions, resource=resources)
    def authorize(self, holder: int, action: str, resource: str) -> None:
        self.check_decisions([self.question(holder, action, resource)], self.one_by_one)

    @rule(pick=picks, action=actions, resource=resources)
    def authorize_with(self, pick: Pick, action: str, resource: str) -> None:
        capability = pick(self.known)
        question = self.question(int(capability.principal[-1]), action, resource)
        question.capability_id = capability.id
        self.check_decisions([question], self.one_by_one)

    @rule(asked=st.lists(st.tuples(holders, actions, resources), min_size=1, max_size=6))
    def authorize_a_batch(self, asked: list[tuple[int, str, str]]) -> None:
        self.check_decisions([self.question(*one) for one in asked], self.in_a_batch)

    @rule(holder=holders, action=actions, resource=resources)
    def explain(self, holder: int, action: str, resource: str) -> None:
        question = self.question(holder, action, resource)
        question.explain = True
        (response,) = self.check_decisions([question], self.one_by_one)
        covering = {k.id for k in self.held_by(question.principal) if matches(k.resource, resource)}
        candidates = response.explanation.candidates
        assert {candidate.capability_id for candidate in candidates} == covering
        assert response.explanation.candidate_count == len(covering) == len(candidates)
        applies = decision_pb2.CANDIDATE_VERDICT_APPLIES
        allowed = response.decision == decision_pb2.DECISION_ALLOW
        assert any(candidate.verdict == applies for candidate in candidates) == allowed

    @rule(holder=holders, include_ended=st.booleans())
    def list_capabilities(self, holder: int, *, include_ended: bool) -> None:
        before = _CLOCK.now()
        response = self.stub.ListCapabilities(
            pb.ListCapabilitiesRequest(
                principal=self.holder(holder), include_ended=include_ended, page_size=1000
            )
        )
        held = self.held_by(self.holder(holder))
        assert [c.id for c in response.capabilities] in [
            [
                k.id
                for k in held
                if include_ended or (k.ended_at is None and now < (k.expires_at or NEVER))
            ]
            for now in self.instants(before, *(k.expires_at for k in held))
        ]

    # How it is done.

    def request(self, wanted: Wanted) -> pb.GrantRequest:
        request = pb.GrantRequest(
            principal=self.holder(wanted.holder),
            actions=wanted.actions,
            resource=self.sent(wanted.resource),
            delegation_depth=wanted.depth,
        )
        not_before, ttl = wanted.life
        if ttl is not None:
            request.ttl.FromMicroseconds(ttl)
        if not_before is not None:
            request.not_before.FromMicroseconds(_CLOCK.now() + not_before)
        return request

    def planned(self, parent: Known, request: pb.GrantRequest, resource: str, now: int) -> Known:
        """Return what a delegation would be if it were taken now."""
        return Known(
            CapabilityId(""),
            Principal(request.principal),
            [*request.actions],
            resource,
            micros(request, "not_before", parent.not_before),
            now + request.ttl.ToMicroseconds() if request.HasField("ttl") else parent.expires_at,
            request.delegation_depth,
            parent,
        )

    def remember(
        self,
        request: pb.GrantRequest,
        response: pb.GrantResponse,
        resource: str,
        parent: Known | None,
    ) -> None:
        granted = response.capability
        assert (granted.principal, granted.resource) == (request.principal, request.resource)
        assert (granted.actions, granted.delegation_depth) == (
            request.actions,
            request.delegation_depth,
        )
        assert granted.parent_id == (parent.id if parent else "")
        known = Known(
            CapabilityId(granted.id),
            Principal(granted.principal),
            [*granted.actions],
            resource,
            micros(granted, "not_before"),
            micros(granted, "expires_at"),
            granted.delegation_depth,
            parent,
        )
        self.known.append(known)
        if parent is not None:
            parent.children.append(known)

    def check_ended(
        self,
        response: pb.RevokeResponse,
        roots: Collection[str],
        ending: Sequence[Known],
        *,
        dry_run: bool,
    ) -> None:
        assert response.ended_count == len(ending)
        assert set(response.ended_capability_ids) == {k.id for k in ending}
        if dry_run:
            return
        for known in ending:
            read = pb.GetCapabilityRequest(capability_id=known.id)
            stored = self.stub.GetCapability(read).capability
            known.ended_at = micros(stored, "ended_at")
            known.cause = EndCause.REVOKED if known.id in roots else EndCause.CASCADE
            assert stored.end_cause == capability_pb2.EndCause.Value(f"END_CAUSE_{known.cause}")

    def held_by(self, principal: str) -> list[Known]:
        return [k for k in self.known if k.principal == principal]

    def question(self, holder: int, action: str, resource: str) -> pb.AuthorizeRequest:
        return pb.AuthorizeRequest(
            principal=self.holder(holder), action=action, resource=self.sent(resource)
        )

    def one_by_one(
        self, questions: Sequence[pb.AuthorizeRequest]
    ) -> Sequence[pb.AuthorizeResponse]:
        return [self.stub.Authorize(question) for question in questions]

    def in_a_batch(
        self, questions: Sequence[pb.AuthorizeRequest]
    ) -> Sequence[pb.AuthorizeResponse]:
        return self.stub.BatchAuthorize(pb.BatchAuthorizeRequest(requests=questions)).responses

    def check_decisions(
        self,
        questions: Sequence[pb.AuthorizeRequest],
        ask: Callable[[Sequence[pb.AuthorizeRequest]], Sequence[pb.AuthorizeResponse]],
    ) -> Sequence[pb.AuthorizeResponse]:
        """Ask, and check that at one instant the model answers all as the server did."""
        before = _CLOCK.now()
        responses = ask(questions)
        boundaries = [at for k in self.known for at in (k.not_before, k.expires_at)]
        assert len(responses) == len(questions)
        assert any(
            all(
                self.is_right(question, response, now)
                for question, response in zip(questions, responses, strict=True)
            )
            for now in self.instants(before, *boundaries)
        )
        return responses

    def is_right(
        self, question: pb.AuthorizeRequest, response: pb.AuthorizeResponse, now: int
    ) -> bool:
        request = Request(
            Principal(question.principal),
            Action(question.action),
            Resource("x:" + question.resource.partition(":")[2]),
            capability_id=CapabilityId(question.capability_id) if question.capability_id else None,
        )
        held = [k.held() for k in self.held_by(question.principal)]
        reasons, named = expected(held, request, now)
        reason = Reason(decision_pb2.Reason.Name(response.reason).removeprefix("REASON_"))
        allowed = response.decision == decision_pb2.DECISION_ALLOW
        return (
            reason in reasons
            and allowed == (reason is Reason.GRANTED)
            and (response.capability_id in named if named else not response.capability_id)
        )


def test_a_served_licet_does_what_its_model_does(database: Database) -> None:
    with serving(database) as served:

        class Machine(LicetMachine):
            def __init__(self) -> None:
                super().__init__(served)

        run_state_machine_as_test(
            Machine, settings=settings(max_examples=40, stateful_step_count=40)
        )
