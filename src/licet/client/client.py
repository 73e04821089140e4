"""The client: one method a call, each with a deadline, all safe to use from several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Self
from uuid import uuid4

from typing_extensions import Unpack

from licet.client import credentials, messages, streaming, transport
from licet.client.agents import Agents
from licet.client.approvals import Approvals
from licet.client.callers import Callers
from licet.client.errors import LicetCallError
from licet.client.imports import Imports
from licet.client.policies import Policies
from licet.client.proofs import Proofs
from licet.client.requests import AuditFilter, AuthorizeRequest, CapabilityFilter, GrantFields
from licet.client.results import (
    AuditEvent,
    AuditPage,
    Capability,
    CapabilityPage,
    CapabilityTree,
    Decision,
    JsonObject,
    Revocation,
    ServingStatus,
)
from licet.v1 import authorization_pb2 as pb
from licet.v1.authorization_pb2_grpc import AuthorizationServiceStub

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS: Final = 5.0
MAX_BATCH: Final = 1000
MAX_PAGE: Final = 1000


class Client:
    """A client of one licet.

        with Client("127.0.0.1:50051") as licet:
            if licet.authorize("agent:worker-17", "read", "doc:reports/2026/q3").allowed:
                ...

    A call that is not answered raises `LicetCallError`; a DENY is an answer. Calls are repeated
    where that is safe, within their deadline: decisions and reads always, changes under one
    `request_id`. Use one client for the life of a program: it holds one connection.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        tls: transport.Tls | None = None,
        api_key: str | Callable[[], str] | None = None,
    ) -> None:
        """Call the licet at `address`, host and port; it connects with the first call.

        Args:
            address: host and port.
            timeout: seconds for each call that has no `timeout` of its own, repetitions included.
            tls: whom to trust, and who this is; None: in plain text.
            api_key: sent with each call, or what returns it; None: none is.

        Raises:
            OSError: a file of `tls` cannot be read.
        """
        self._timeout = timeout
        self._channel = credentials.bearing(transport.open_channel(address, tls), api_key)
        self._stub = AuthorizationServiceStub(self._channel)
        self.callers = Callers(self._channel, self._seconds)
        """The calls about who may call."""
        self.policies = Policies(self._channel, self._seconds)
        """The calls about policies."""
        self.approvals = Approvals(self._channel, self._seconds)
        """The calls about approvals."""
        self.agents = Agents(self._channel, self._seconds)
        """The calls about agents."""
        self.proofs = Proofs(self._channel, self._seconds)
        """The calls that prove what the audit log holds."""
        self.imports = Imports(self._channel, self._seconds)
        """The call that takes over the log of another system."""
        self._check_health = transport.health_check(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that still run fail with CANCELLED."""
        self._channel.close()

    def authorize(  # noqa: PLR0913 - one argument per field
        self,
        principal: str,
        action: str,
        resource: str,
        *,
        context: JsonObject | None = None,
        capability_id: str | None = None,
        session_id: str = "",
        trace_id: str = "",
        explain: bool = False,
        timeout: float | None = None,
    ) -> Decision:
        """Ask whether a principal may do an action on a resource.

        Args:
            principal: who acts.
            action: what is done.
            resource: what it is done to; not a pattern.
            context: facts for conditions and policies.
            capability_id: exercise only this capability.
            session_id: the session in which the principal acts.
            trace_id: the trace to which the request belongs.
            explain: ask for the candidates; costs more.
            timeout: seconds, when not the client's.

        Raises:
            LicetCallError: no decision was taken.
        """
        request = messages.authorize_request(
            AuthorizeRequest(
                *(principal, action, resource, context, capability_id, session_id, trace_id),
                explain=explain,
            )
        )
        return messages.decision(
            transport.read(self._stub.Authorize, request, self._seconds(timeout))
        )

    def authorize_many(
        self, requests: Iterable[AuthorizeRequest], *, timeout: float | None = None
    ) -> list[Decision]:
        """Ask many questions and return the answers in their order.

        1,000 at a time are decided at one instant; `timeout` is for each thousand.

        Raises:
            LicetCallError: not all were answered; decisions that were taken are on record.
        """
        remaining = iter(requests)
        decisions: list[Decision] = []
        while chunk := list(islice(remaining, MAX_BATCH)):
            batch = pb.BatchAuthorizeRequest(
                requests=[messages.authorize_request(request) for request in chunk]
            )
            answer = transport.read(self._stub.BatchAuthorize, batch, self._seconds(timeout))
            if len(answer.responses) != len(chunk):
                raise LicetCallError(
                    "INTERNAL", f"{len(answer.responses)} answers to {len(chunk)} requests"
                )
            decisions.extend(map(messages.decision, answer.responses))
        return decisions

    def authorize_stream(
        self, requests: Iterable[AuthorizeRequest], *, timeout: float | None = None
    ) -> Iterator[Decision]:
        """Ask questions as they come and iterate over the answers, in their order.

        A thread reads `requests` ahead of the answers. The stream ends when they are used up, or
        when the iterator is closed; it is not repeated when it fails.

        Args:
            requests: read in another thread.
            timeout: seconds for the whole stream; unlimited if omitted.

        Raises:
            LicetCallError: while iterating, the stream failed; decisions given before stand. What
                `requests` raises is raised here.
        """
        return streaming.authorize(self._stub.StreamAuthorize, requests, timeout)

    def grant(
        self,
        principal: str,
        actions: str | Iterable[str],
        resource: str,
        *,
        timeout: float | None = None,
        **fields: Unpack[GrantFields],
    ) -> Capability:
        """Grant a capability.

        Args:
            principal: who will hold it.
            actions: one or more, or `*` for any.
            resource: a resource pattern.
            timeout: seconds, when not the client's.
            fields: see `GrantFields`.

        Raises:
            LicetCallError: see there for what is known then.
        """
        return self._grant(None, principal, actions, resource, timeout, fields)

    def delegate(
        self,
        parent_id: str,
        principal: str,
        actions: str | Iterable[str],
        resource: str,
        *,
        timeout: float | None = None,
        **fields: Unpack[GrantFields],
    ) -> Capability:
        """Delegate a part of a capability: a grant that is never wider than its parent.

        Raises:
            LicetCallError: as `grant` does; a delegation that would be wider is
                PERMISSION_DENIED, and `reason` names the dimension.
        """
        return self._grant(parent_id, principal, actions, resource, timeout, fields)

    def revoke(  # noqa: PLR0913 - one argument per field
        self,
        capability_id: str | None = None,
        *,
        principal: str = "",
        resource: str = "",
        granted_by: str = "",
        session_id: str = "",
        reason: str = "",
        dry_run: bool = False,
        request_id: str = "",
        trace_id: str = "",
        timeout: float | None = None,
    ) -> Revocation:
        """End one capability, or all that match a filter, and always all their descendants.

        Args:
            capability_id: the one to end; otherwise set at least one field of the filter.
            principal: the holder, exactly.
            resource: a resource pattern; matches capabilities whose own pattern lies inside it.
            granted_by: the caller who granted, exactly.
            session_id: the session, exactly.
            reason: why, for the record.
            dry_run: only say what would end.
            request_id: idempotency key; one is made when there is none.
            trace_id: the trace to which the request belongs.
            timeout: seconds, when not the client's.

        Raises:
            LicetCallError: see there for what is known then.
        """
        wanted = {
            "principal": principal,
            "resource": resource,
            "granted_by": granted_by,
            "session_id": session_id,
        }
        request = messages.build(
            pb.RevokeRequest,
            capability_id=capability_id,
            filter=messages.build(pb.RevokeFilter, **wanted) if any(wanted.values()) else None,
            reason=reason,
            dry_run=dry_run,
            request_id=request_id or (None if dry_run else uuid4().hex),
            trace_id=trace_id,
        )
        answer = transport.change(self._stub.Revoke, request, self._seconds(timeout))
        return messages.revocation(answer)

    def capability(
        self, capability_id: str, *, with_tree: bool = False, timeout: float | None = None
    ) -> CapabilityTree:
        """Read one capability and, when asked, the delegations around it.

        Raises:
            LicetCallError: NOT_FOUND, or it was not answered.
        """
        request = messages.build(
            pb.GetCapabilityRequest, capability_id=capability_id, include_tree=with_tree
        )
        answer = transport.read(self._stub.GetCapability, request, self._seconds(timeout))
        return messages.capability_tree(answer)

    def capabilities(
        self,
        *,
        page_size: int = MAX_PAGE,
        timeout: float | None = None,
        **wanted: Unpack[CapabilityFilter],
    ) -> Iterator[Capability]:
        """Iterate over capabilities, oldest first; pages are read as they are needed.

        Raises:
            LicetCallError: while iterating, a page was not answered; `timeout` is for each page.
        """
        token = ""
        while True:
            page = self.capabilities_page(token, page_size=page_size, timeout=timeout, **wanted)
            yield from page.capabilities
            token = page.next_page_token
            if not token:
                return

    def capabilities_page(
        self,
        page_token: str = "",
        *,
        page_size: int = 0,
        timeout: float | None = None,
        **wanted: Unpack[CapabilityFilter],
    ) -> CapabilityPage:
        """Read one page of capabilities: the first, or that of a `next_page_token`.

        A `page_size` of 0 is the server's default.

        Raises:
            LicetCallError: it was not answered.
        """
        request = messages.build(
            pb.ListCapabilitiesRequest, page_size=page_size, page_token=page_token, **wanted
        )
        answer = transport.read(self._stub.ListCapabilities, request, self._seconds(timeout))
        return CapabilityPage(
            tuple(map(messages.capability, answer.capabilities)), answer.next_page_token
        )

    def audit(
        self,
        *,
        page_size: int = MAX_PAGE,
        timeout: float | None = None,
        **wanted: Unpack[AuditFilter],
    ) -> Iterator[AuditEvent]:
        """Iterate over audit events, newest first; pages are read as they are needed.

        Raises:
            LicetCallError: while iterating, a page was not answered; `timeout` is for each page.
        """
        token = ""
        while True:
            page = self.audit_page(token, page_size=page_size, timeout=timeout, **wanted)
            yield from page.events
            token = page.next_page_token
            if not token:
                return

    def audit_page(
        self,
        page_token: str = "",
        *,
        page_size: int = 0,
        timeout: float | None = None,
        **wanted: Unpack[AuditFilter],
    ) -> AuditPage:
        """Read one page of audit events: the newest, or that of a `next_page_token`.

        A `page_size` of 0 is the server's default. A page may be short or empty and still have a
        successor: events are searched for within a time, and its `next_page_token` goes on.

        Raises:
            LicetCallError: it was not answered.
        """
        request = messages.audit_request(wanted, page_size, page_token)
        answer = transport.read(self._stub.QueryAudit, request, self._seconds(timeout))
        return AuditPage(
            tuple(map(messages.audit_event, answer.events)),
            answer.next_page_token,
            answer.checkpoint,
        )

    def health(self, *, timeout: float | None = None) -> ServingStatus:
        """Ask whether the server is ready to decide.

        Raises:
            LicetCallError: nobody answered.
        """
        answer = transport.read(
            self._check_health, transport.HEALTH_OF_SERVICE, self._seconds(timeout)
        )
        return messages.serving_status(answer)

    def _grant(  # noqa: PLR0913, PLR0917 - one argument per field
        self,
        parent: str | None,
        principal: str,
        actions: str | Iterable[str],
        resource: str,
        timeout: float | None,
        fields: GrantFields,
    ) -> Capability:
        request = messages.grant_request(parent, principal, actions, resource, fields)
        if not request.request_id:
            request.request_id = uuid4().hex
        return messages.capability(
            transport.change(self._stub.Grant, request, self._seconds(timeout)).capability
        )

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout
