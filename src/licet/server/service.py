"""AuthorizationService: three lines an RPC.

What may be asked is checked in `convert.py`, what is done is in `app`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import grpc
from typing_extensions import override

from licet.app.approvals import ManageApprovals
from licet.app.authorize import Answer, Authorize
from licet.app.grant import GrantCapability
from licet.app.import_audit import ImportAudit
from licet.app.keys import ManageKeys
from licet.app.policies import ManagePolicies
from licet.app.ports import AT_ONCE, NotAtOnceError
from licet.app.prove import ProveAudit, StoredCheckpoint
from licet.app.read import QueryAudit, ReadCapabilities
from licet.app.recording import Acknowledge
from licet.app.replay import ReplayPolicies
from licet.app.revoke import RevokeCapabilities
from licet.app.suspend import SuspendPrincipals
from licet.app.users import ManageUsers
from licet.app.watch import WatchChanges
from licet.domain.decision import Request
from licet.domain.names import Caller
from licet.server import convert, encoding, proofs, render
from licet.server.agent_methods import AgentUseCases
from licet.server.changes import Changes
from licet.server.identity import deadline_of, identity_of
from licet.server.places import Places
from licet.server.replies import Answering, Reply, when_told
from licet.server.watchers import Watchers
from licet.v1 import authorization_pb2 as pb
from licet.v1 import authorization_pb2_grpc as pb_grpc

MAX_AT_ONCE: Final = 32
"""How many decisions are taken together on the thread that all others wait for; of a larger batch,
handing it to another thread is a small part."""


@dataclass(frozen=True, slots=True)
class IdentityUseCases:
    """What IdentityService offers."""

    keys: ManageKeys
    users: ManageUsers
    suspensions: SuspendPrincipals
    agents: AgentUseCases


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the services offer, and the latest checkpoint that this process knows."""

    authorize: Authorize
    grant: GrantCapability
    revoke: RevokeCapabilities
    capabilities: ReadCapabilities
    audit: QueryAudit
    watch: WatchChanges
    prove: ProveAudit
    identity: IdentityUseCases
    import_audit: ImportAudit
    policies: ManagePolicies
    approvals: ManageApprovals
    replay: ReplayPolicies
    latest_checkpoint: Callable[[], StoredCheckpoint | None]


class AuthorizationService(pb_grpc.AuthorizationServiceServicer):
    """Serves `licet.v1.AuthorizationService`."""

    def __init__(self, use_cases: UseCases, mutations: Places, watchers: Watchers) -> None:
        """Serve these use cases; a change has a place of its own, because it may hold a thread."""
        self._do = use_cases
        self._watchers = watchers
        self._mutations = mutations

    @override
    def Authorize(
        self, request: pb.AuthorizeRequest, context: grpc.ServicerContext
    ) -> pb.AuthorizeResponse:
        caller, question = identity_of(context), convert.authorize(request)
        caller.check_question(question.principal, question.resource)
        return render.authorize(self._do.authorize(question, caller.caller, deadline_of(context)))

    @override
    def BatchAuthorize(
        self, request: pb.BatchAuthorizeRequest, context: grpc.ServicerContext
    ) -> pb.BatchAuthorizeResponse:
        return render.batch(self._batch(request.requests, context))

    @override
    def StreamAuthorize(
        self, request_iterator: Iterator[pb.StreamAuthorizeRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamAuthorizeResponse]:
        for message in request_iterator:
            yield render.stream(self._batch(message.requests, context))

    @override
    def Grant(self, request: pb.GrantRequest, context: grpc.ServicerContext) -> pb.GrantResponse:
        with self._mutations:
            caller = identity_of(context)
            granted = self._do.grant(convert.grant(request), caller, deadline_of(context))
        self._tell_checkpoint(context)
        return render.grant(granted)

    @override
    def Revoke(self, request: pb.RevokeRequest, context: grpc.ServicerContext) -> pb.RevokeResponse:
        with self._mutations:
            caller = identity_of(context)
            revoked = self._do.revoke(convert.revoke(request), caller, deadline_of(context))
        self._tell_checkpoint(context)
        return render.revoke(revoked)

    @override
    def GetCapability(
        self, request: pb.GetCapabilityRequest, context: grpc.ServicerContext
    ) -> pb.GetCapabilityResponse:
        capability_id = convert.capability_id(request)
        found = self._do.capabilities.get(
            capability_id, deadline_of(context), with_tree=request.include_tree
        )
        return render.capability(*found)

    @override
    def ListCapabilities(
        self, request: pb.ListCapabilitiesRequest, context: grpc.ServicerContext
    ) -> pb.ListCapabilitiesResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        wanted = convert.capability_filter(request)
        return render.capabilities(
            self._do.capabilities.page(wanted, size, token, deadline_of(context))
        )

    @override
    def QueryAudit(
        self, request: pb.QueryAuditRequest, context: grpc.ServicerContext
    ) -> pb.QueryAuditResponse:
        size, token = convert.page_size(request.page_size), convert.page_token(request.page_token)
        deadline = deadline_of(context)
        page = self._do.audit(convert.audit_filter(request), size, token, deadline)
        checkpoint = self._tell_checkpoint(context)
        ids = [recorded.event_id for recorded in page.items]
        return render.audit(page, checkpoint, self._do.prove.unsealed(ids, checkpoint, deadline))

    @override
    def WatchChanges(
        self, request: pb.WatchChangesRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchChangesResponse]:
        watch = self._do.watch(convert.watch(request), deadline_of(context))
        # Not called when the client has gone already; then sending the first message fails.
        context.add_callback(watch.cancel)
        return self._watchers.sent(context, map(render.watch, watch))

    def hybrid(self) -> dict[str, Answering]:
        """Return, of some methods, what answers without a thread that waits for the disk.

        Given no time, it does not wait for anything: it raises NotAtOnceError.
        """
        return {
            "Authorize": self._answer_authorize,
            "BatchAuthorize": self._answer_batch,
            "StreamAuthorize": self._answer_batch,
        }

    def hybrid_changes(self, threads: Executor) -> dict[str, Answering]:
        """Return, of some methods, what answers without a thread that waits for a change.

        As `hybrid` otherwise; `threads` finish what has to wait for something else.
        """
        changes = Changes(self._mutations, threads, self._tell_checkpoint)
        return {
            "Grant": changes.answering(convert.grant, self._do.grant.begin, render.grant),
            "Revoke": changes.answering(convert.revoke, self._do.revoke.begin, render.revoke),
        }

    def _answer_authorize(
        self, request: pb.AuthorizeRequest, context: grpc.ServicerContext, reply: Reply
    ) -> None:
        caller, question = identity_of(context), convert.authorize(request)
        caller.check_question(question.principal, question.resource)
        deadline = deadline_of(context)
        if request.explain and deadline is AT_ONCE:
            raise NotAtOnceError

        def prepare(answer: Answer) -> Acknowledge:
            return when_told(reply, encoding.authorize(answer))

        self._do.authorize.deferred(question, caller.caller, deadline, prepare)

    def _answer_batch(
        self,
        message: pb.BatchAuthorizeRequest | pb.StreamAuthorizeRequest,
        context: grpc.ServicerContext,
        reply: Reply,
    ) -> None:
        deadline = deadline_of(context)
        # A list: whoever comes to the end of protobuf's makes an error with a text, and drops it.
        messages = message.requests[:]
        if deadline is AT_ONCE and (
            len(messages) > MAX_AT_ONCE or any(asked.explain for asked in messages)
        ):
            raise NotAtOnceError
        caller, questions = self._asked(messages, context)
        authorize = self._do.authorize
        if len(questions) == 1:
            # Most messages of a stream have one, and what sees to several costs as much again.
            authorize.deferred(
                questions[0],
                caller,
                deadline,
                lambda answer: when_told(reply, encoding.several((answer,))),
            )
        else:
            authorize.batch_deferred(
                questions,
                caller,
                deadline,
                lambda answers: when_told(reply, encoding.several(answers)),
            )

    def _batch(
        self, messages: Sequence[pb.AuthorizeRequest], context: grpc.ServicerContext
    ) -> list[Answer]:
        caller, questions = self._asked(messages, context)
        return self._do.authorize.batch(questions, caller, deadline_of(context))

    def _asked(
        self, messages: Sequence[pb.AuthorizeRequest], context: grpc.ServicerContext
    ) -> tuple[Caller, list[Request]]:
        caller, questions = identity_of(context), convert.batch(messages)
        if caller.is_limited:
            for question in questions:
                caller.check_question(question.principal, question.resource)
        return caller.caller, questions

    def _tell_checkpoint(self, context: grpc.ServicerContext) -> StoredCheckpoint | None:
        """Send the latest checkpoint along: whoever keeps it can tell if the log is cut off."""
        checkpoint = self._do.latest_checkpoint()
        context.set_trailing_metadata(proofs.checkpoint_metadata(checkpoint))
        return checkpoint
