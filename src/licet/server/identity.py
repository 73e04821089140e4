"""Who calls: from the client certificate or the metadata of a call to an identity with scopes.

The interceptor finds it before the handler runs and leaves it on the call's context, where the
handler reads it: a third argument would change the signature of every generated method, and a
wrapped context costs more than what it carries (docs/decisions/0029-callers.md).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any, Final, Protocol, TypeAlias, cast

import grpc

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain.api_key import EXPECTED
from licet.domain.caller import Identity
from licet.domain.errors import UnauthenticatedError
from licet.domain.names import Caller
from licet.server.failures import UNIX, address_of
from licet.server.peer import PeerRefusedError
from licet.server.strangers import Strangers
from licet.server.tls import ServerTls

_AUTHORIZATION: Final = "authorization"

_Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


class Credentials(Protocol):
    """What a bearer credential is verified by."""

    @property
    def remembered(self) -> Container[str]:
        """The headers that were verified before; to look costs next to nothing."""
        ...

    def current(self, header: str, /) -> Identity | None:
        """Return whom memory says that such a header authenticates; None: it does not say.

        It neither blocks nor computes. Raises UnauthenticatedError: nobody any more.
        """
        ...

    def known(self, header: str, deadline: Deadline, /) -> Identity | None:
        """Return whom a header that was verified before authenticates; None: it was not.

        Raises as the following.
        """
        ...

    def __call__(self, header: str, deadline: Deadline, /) -> Identity:
        """Return whom an `authorization` header authenticates.

        Raises:
            UnauthenticatedError: nobody.
            UnavailableError, DeadlineError: that cannot be known.
        """
        ...


class Authentication:
    """Finds out who calls, in this order of trust: certificate, then bearer credential."""

    def __init__(
        self,
        api_keys: Credentials,
        anonymous: Identity | None = None,
        by_certificate: Callable[[grpc.ServicerContext], Identity | None] | None = None,
        strangers: Strangers | None = None,
    ) -> None:
        """Compose it.

        Args:
            api_keys: verifies an `authorization` header.
            anonymous: who a caller without credentials is; None: refused.
            by_certificate: returns whom the call's client certificate authenticates, if any.
            strangers: who may have a credential verified, if not everybody.
        """
        self._api_keys = api_keys
        self._remembered = api_keys.remembered
        self._anonymous = anonymous
        self._by_certificate = by_certificate
        self.strangers = Strangers() if strangers is None else strangers

    def __call__(self, context: grpc.ServicerContext) -> Identity:
        """Return who calls, now.

        Raises:
            UnauthenticatedError: that is nobody, or not clear.
            RateLimitedError: too many credentials from there were not valid.
            UnavailableError, DeadlineError: it cannot be known.
            NotAtOnceError: it may be a stranger, or is not in memory; see `Strangers`.
        """
        if self._by_certificate is not None:
            identity = self._by_certificate(context)
            if identity is not None:
                return identity
        header: Any = getattr(context, "licet_header", _UNREAD)
        if header is _UNREAD:
            header = _header_in(context.invocation_metadata())
            context.licet_header = header  # type: ignore[attr-defined] # as for `attach`
        if header is not None:
            try:
                identity = self._api_keys.current(header)
                return self._looked_up(header, context) if identity is None else identity
            except UnauthenticatedError:
                self.strangers.failed(context)
                raise
        if self._anonymous is None:
            if deadline_of(context) is AT_ONCE:
                raise NotAtOnceError  # a stranger's
            raise UnauthenticatedError(EXPECTED)
        return self._anonymous

    def knows(self, context: grpc.ServicerContext) -> bool:
        """Say whether a call may be somebody's without further verifying.

        It neither blocks nor computes; who the caller is, and whether it may call, it does not say.
        What it has read is left on the call, for each of its messages.
        """
        try:
            header = _header_in(context.invocation_metadata())
        except UnauthenticatedError:
            return False
        context.licet_header = header  # type: ignore[attr-defined] # as for `attach`
        if header is not None:
            return header in self._remembered
        if self._anonymous is not None or self._by_certificate is None:
            return self._anonymous is not None
        # TLS has let in who comes by the port; the socket is open to whom its mode says.
        return address_of(context.peer()) != UNIX

    def may_know(self, metadata: _Metadata) -> bool:
        """Say as much of a call of which only its metadata is there.

        One over the Unix socket may be somebody's by a certificate, too.
        """
        try:
            header = _header_in(metadata)
        except UnauthenticatedError:
            return False
        if header is not None:
            return header in self._remembered
        return self._anonymous is not None or self._by_certificate is not None

    def _looked_up(self, header: str, context: grpc.ServicerContext) -> Identity:
        identity = self._api_keys.known(header, deadline_of(context))
        return self._verified(header, context) if identity is None else identity

    def _verified(self, header: str, context: grpc.ServicerContext) -> Identity:
        if deadline_of(context) is AT_ONCE:
            raise NotAtOnceError  # it is hashed, and looked for, elsewhere
        # Who is known pays for nobody's failures, wherever it calls from. Of others nothing is
        # looked at before this, so that it says nothing about a credential either.
        self.strangers.check(context)
        return self._api_keys(header, deadline_of(context))


_UNREAD: Final = object()


def _header_in(metadata: _Metadata) -> str | None:
    """Return a call's `authorization`; None: it has none.

    Raises:
        UnauthenticatedError: it has two, and which of them counts is not to be guessed.
    """
    header: str | None = None
    for key, value in metadata:
        if key == _AUTHORIZATION:
            if header is not None:
                raise UnauthenticatedError(EXPECTED)
            header = cast("str", value)
    return header


def by_certificate(
    tls: ServerTls, is_barred: Callable[[Caller, Deadline], bool]
) -> Callable[[grpc.ServicerContext], Identity | None]:
    """Return what finds a call's caller in the table in use; None: its certificate is not there.

    `is_barred` says whether nobody may call as a caller now.

    It raises:
        UnauthenticatedError: the certificate has expired, or does not say for certain whose it is;
            or the caller is suspended, or a user who is disabled. Then nothing else counts either.
        UnavailableError, DeadlineError: that cannot be known.
    """

    def identify(context: grpc.ServicerContext) -> Identity | None:
        try:
            identity = tls.callers.caller_of(context.auth_context())  # type: ignore[arg-type] # lists, whatever its stub says
        except PeerRefusedError as exc:
            raise UnauthenticatedError(str(exc)) from exc
        if identity is not None and is_barred(identity.caller, deadline_of(context)):
            raise UnauthenticatedError("the caller is suspended or disabled")
        return identity

    return identify


def attach(context: grpc.ServicerContext, identity: Identity) -> None:
    """Leave on a call who makes it."""
    context.licet_identity = identity  # type: ignore[attr-defined] # an object of Python, without slots


def deadline_of(context: grpc.ServicerContext) -> Deadline:
    """Return how long the caller still waits; on the thread that must never wait, `AT_ONCE`."""
    if getattr(context, "licet_at_once", False):
        return AT_ONCE
    return patience_of(context)


def patience_of(context: grpc.ServicerContext) -> Deadline:
    """Return how long the caller still waits, also on the thread that must not."""
    return Deadline(context.time_remaining)


def want_at_once(context: grpc.ServicerContext, *, at_once: bool) -> None:
    """Choose what `deadline_of` a call is, until it is chosen again."""
    context.licet_at_once = at_once  # type: ignore[attr-defined] # as for `attach`


def note_counted(context: grpc.ServicerContext) -> None:
    """Note that what a message asks was counted already: it is about to be attempted again."""
    context.licet_counted = True  # type: ignore[attr-defined] # as for `attach`


def was_counted(context: grpc.ServicerContext) -> bool:
    """Say whether that was noted of the message that is attempted now, and forget it."""
    if not getattr(context, "licet_counted", False):
        return False
    context.licet_counted = False  # type: ignore[attr-defined] # as for `attach`
    return True


def note_stranger(context: grpc.ServicerContext, *, is_stranger: bool) -> None:
    """Note of a call whether it goes to the threads of strangers, until it is noted again."""
    context.licet_is_stranger = is_stranger  # type: ignore[attr-defined] # as for `attach`


def is_stranger(context: grpc.ServicerContext) -> bool:
    """Say whether it was noted that it does."""
    return getattr(context, "licet_is_stranger", False)


def identity_of(context: grpc.ServicerContext) -> Identity:
    """Return who makes a call. Without an answer this raises, and the call fails."""
    return context.licet_identity  # type: ignore[attr-defined, no-any-return] # see `attach`
