"""In which order a caller is looked for: certificate, bearer credential, and nobody."""

from __future__ import annotations

from typing import cast

import grpc
import pytest

from licet.app.ports import Deadline
from licet.domain.caller import ANONYMOUS, Identity, Scope
from licet.domain.errors import RateLimitedError, UnauthenticatedError
from licet.domain.names import Caller
from licet.server.identity import Authentication, attach, identity_of
from licet.server.rates import Buckets
from licet.server.strangers import Strangers
from tests.fakes.manual import ManualClock

BY_KEY = Identity.of(Caller("key:a"), {Scope.READ})
BY_CERTIFICATE = Identity.of(Caller("service:gate"), {Scope.AUTHORIZE})


class Call:
    """A call with this metadata."""

    def __init__(self, *metadata: tuple[str, str], peer: str = "ipv4:192.0.2.1:4711") -> None:
        self._metadata = metadata
        self._peer = peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def peer(self) -> str:
        return self._peer

    def time_remaining(self) -> float | None:
        return None


def call(*headers: str) -> grpc.ServicerContext:
    entries = [("user-agent", "x"), *(("authorization", header) for header in headers)]
    return cast("grpc.ServicerContext", Call(*entries))


class Keys:
    """Knows one header."""

    def __init__(self, *remembered: str) -> None:
        self.remembered = remembered
        self.verified: list[str] = []

    def current(self, header: str) -> Identity | None:
        if header == "ended":
            raise UnauthenticatedError("no more")
        return BY_KEY if header == "in memory" else None

    def known(self, header: str, deadline: Deadline) -> Identity | None:
        return self(header, deadline) if header in self.remembered else None

    def __call__(self, header: str, deadline: Deadline) -> Identity:
        assert deadline.remaining(3.0) == 3.0
        self.verified.append(header)
        if header != "good":
            raise UnauthenticatedError("no")
        return BY_KEY


by_key = Keys()


@pytest.mark.parametrize("anonymous", [None, ANONYMOUS])
def test_a_credential_that_is_sent_counts_also_where_none_is_needed(
    anonymous: Identity | None,
) -> None:
    authenticate = Authentication(by_key, anonymous)
    assert authenticate(call("good")) is BY_KEY
    for headers in (("bad",), ("",), ("good", "good")):
        with pytest.raises(UnauthenticatedError):
            authenticate(call(*headers))


def test_nobody_is_anonymous_only_where_that_is_wanted() -> None:
    assert Authentication(by_key, ANONYMOUS)(call()) is ANONYMOUS
    with pytest.raises(UnauthenticatedError):
        Authentication(by_key)(call())


def test_a_certificate_counts_before_a_key_and_none_is_no_obstacle() -> None:
    certified = Authentication(by_key, None, lambda _: BY_CERTIFICATE)
    assert certified(call("bad")) is BY_CERTIFICATE
    unknown = Authentication(by_key, None, lambda _: None)
    assert unknown(call("good")) is BY_KEY

    def refused(_: grpc.ServicerContext) -> Identity:
        raise UnauthenticatedError("the certificate has expired")

    with pytest.raises(UnauthenticatedError):
        Authentication(by_key, ANONYMOUS, refused)(call("good"))


def test_from_an_address_that_failed_too_often_only_those_who_are_known_are_let_in() -> None:
    clock = ManualClock()
    keys = Keys()
    strangers = Strangers(Buckets(1.0, 2, clock))
    authenticate = Authentication(keys, None, None, strangers)
    assert authenticate(call("good")) is BY_KEY  # what succeeds costs nothing
    for _ in range(2):
        with pytest.raises(UnauthenticatedError):
            authenticate(call("bad"))
    keys.verified.clear()
    for header in ("bad", "good"):
        with pytest.raises(RateLimitedError) as limited:
            authenticate(call(header))
        assert limited.value.limit == "failures"
        assert limited.value.seconds == pytest.approx(1.0)
    assert keys.verified == []
    # No credential at all is no attempt, and is not told to wait.
    with pytest.raises(UnauthenticatedError):
        authenticate(call())
    keys.remembered = ("good",)
    assert authenticate(call("good")) is BY_KEY
    clock.now += 1.0
    keys.remembered = ()
    assert authenticate(call("good")) is BY_KEY


def test_a_key_that_has_ended_is_a_failure_like_any_other() -> None:
    strangers = Strangers(Buckets(1.0, 1, ManualClock()))
    authenticate = Authentication(Keys("ended"), None, None, strangers)
    with pytest.raises(UnauthenticatedError):
        authenticate(call("ended"))
    with pytest.raises(RateLimitedError):
        authenticate(call("good"))


def test_who_is_in_memory_is_not_looked_for_elsewhere() -> None:
    keys = Keys("in memory")
    assert Authentication(keys)(call("in memory")) is BY_KEY
    assert keys.verified == []


def test_who_is_a_stranger_is_told_without_verifying() -> None:
    keys = Keys("good")

    def are_known(authenticate: Authentication, *headers: str) -> tuple[bool, bool]:
        asked = call(*headers)
        return authenticate.knows(asked), authenticate.may_know(asked.invocation_metadata() or ())

    both, neither = (True, True), (False, False)
    assert are_known(Authentication(keys), "good") == both
    for anonymous in (None, ANONYMOUS):
        assert are_known(Authentication(keys, anonymous), "bad") == neither
        assert are_known(Authentication(keys, anonymous), "good", "good") == neither
    assert are_known(Authentication(keys)) == neither
    assert are_known(Authentication(keys, ANONYMOUS)) == both
    by_certificate = Authentication(keys, None, lambda _: None)
    assert are_known(by_certificate) == both
    for headers, is_known in (((), False), (("good",), True), (("bad",), False)):
        entries = (("authorization", header) for header in headers)
        over_socket = Call(*entries, peer="unix:/run/licet")
        assert by_certificate.knows(cast("grpc.ServicerContext", over_socket)) is is_known
    assert keys.verified == []


def test_what_a_call_brings_is_read_once_and_what_it_means_each_time() -> None:
    keys = Keys("good")
    authenticate = Authentication(keys, ANONYMOUS)
    for headers, identity in ((("good",), BY_KEY), ((), ANONYMOUS)):
        asked = call(*headers)
        assert authenticate.knows(asked)
        asked.invocation_metadata = lambda: pytest.fail("read again")  # type: ignore[method-assign]
        assert [authenticate(asked) for _ in range(3)] == [identity] * 3
    assert keys.verified == ["good"] * 3
    for sent in (("bad",), ("good", "good"), ("good", "bad")):
        refused = call(*sent)
        assert not authenticate.knows(refused)
        for _ in range(2):
            with pytest.raises(UnauthenticatedError):
                authenticate(refused)


def test_a_handler_without_an_identity_fails() -> None:
    context = call()
    with pytest.raises(AttributeError):
        identity_of(context)
    attach(context, BY_KEY)
    assert identity_of(context) is BY_KEY
