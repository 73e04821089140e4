"""The decision: every reason at the microsecond on which it changes, and the sentence for each."""

from __future__ import annotations

import pytest

from licet.domain.capability import EndCause
from licet.domain.capability_set import HeldCapability, Standing
from licet.domain.decision import Decision, Reason, Request, decide, describe, explain
from licet.domain.instant import Instant
from tests.unit.builders import HOLDER, NOW, asking, held, holding, identifier

AT = "2027-01-15T08:00:00.000000+00:00"
WHAT = "read on doc:reports/2026"
# A capability that names the resource is found by a way of its own.
EXACT_AND_NOT = ("doc:reports/2026", "doc:reports/*")


def decided(
    *capabilities: HeldCapability, request: Request | None = None, now: int = NOW
) -> Decision:
    return decide(holding(*capabilities, now=now), request or asking(), Instant(now))


def denied(reason: Reason, capability: HeldCapability | None) -> Decision:
    return Decision(
        allowed=False, reason=reason, capability=capability, valid_until=None, revision=7
    )


def test_what_nothing_covers_is_denied() -> None:
    assert decided() == denied(Reason.NO_CAPABILITY, None)
    assert decided(held(1, "doc:other"), held(2, allowed="write")) == decided()


def test_what_a_capability_covers_is_allowed() -> None:
    capability = held(1)
    assert decided(capability) == Decision(
        allowed=True, reason=Reason.GRANTED, capability=capability, valid_until=None, revision=7
    )


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (NOW - 1, Reason.GRANTED),
        (NOW, Reason.CAPABILITY_EXPIRED),
        (NOW + 1, Reason.CAPABILITY_EXPIRED),
    ],
)
@pytest.mark.parametrize("loaded_at", [NOW - 1, NOW + 1])
@pytest.mark.parametrize("resource", EXACT_AND_NOT)
def test_a_capability_is_dead_from_the_microsecond_of_its_expiry(
    now: int, reason: Reason, loaded_at: int, resource: str
) -> None:
    # The set may have been read before the expiry or after it: the answer is the same.
    capability = held(1, resource, expires_at=NOW)
    decision = decide(holding(capability, now=min(loaded_at, now)), asking(), Instant(now))
    assert decision.reason is reason
    assert decision.allowed is (reason is Reason.GRANTED)
    assert decision.capability == capability
    assert decision.valid_until == (NOW if decision.allowed else None)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (NOW - 1, Reason.NOT_YET_VALID),
        (NOW, Reason.GRANTED),
        (NOW + 1, Reason.GRANTED),
    ],
)
@pytest.mark.parametrize("resource", EXACT_AND_NOT)
def test_a_capability_is_alive_from_the_microsecond_of_its_start(
    now: int, reason: Reason, resource: str
) -> None:
    capability = held(1, resource, not_before=NOW)
    decision = decided(capability, now=now)
    assert decision.reason is reason
    assert decision.allowed is (reason is Reason.GRANTED)
    assert decision.capability == capability


@pytest.mark.parametrize(
    ("ended_at", "reason"),
    [
        pytest.param(NOW - 6, Reason.CAPABILITY_REVOKED, id="revoked before its expiry"),
        pytest.param(NOW - 5, Reason.CAPABILITY_EXPIRED, id="revoked at its expiry"),
        pytest.param(NOW - 4, Reason.CAPABILITY_EXPIRED, id="revoked after its expiry"),
    ],
)
def test_of_expiry_and_revocation_the_first_one_is_the_end(ended_at: int, reason: Reason) -> None:
    capability = held(1, expires_at=NOW - 5, ended_at=ended_at)
    assert decided(capability) == denied(reason, capability)


@pytest.mark.parametrize("cause", EndCause)
def test_a_capability_ended_before_its_time_counts_as_revoked(cause: EndCause) -> None:
    decision = decided(held(1, ended_at=NOW - 1, cause=cause))
    assert decision.reason is Reason.CAPABILITY_REVOKED


def test_a_revocation_holds_though_the_clock_that_stamped_it_is_ahead() -> None:
    assert decided(held(1, ended_at=NOW + 99)).reason is Reason.CAPABILITY_REVOKED


@pytest.mark.parametrize(
    ("capabilities", "reason", "closest"),
    [
        pytest.param(
            (held(1, expires_at=NOW - 9), held(2, "doc:**", ended_at=NOW - 8)),
            Reason.CAPABILITY_REVOKED,
            2,
            id="revoked after the other expired",
        ),
        pytest.param(
            (held(1, expires_at=NOW - 7), held(2, "doc:**", ended_at=NOW - 8)),
            Reason.CAPABILITY_EXPIRED,
            1,
            id="expired after the other was revoked",
        ),
        pytest.param(
            (held(1, expires_at=NOW - 7), held(2, expires_at=NOW - 8)),
            Reason.CAPABILITY_EXPIRED,
            1,
            id="the later of two expiries in one entry",
        ),
        pytest.param(
            (held(1, ended_at=NOW - 7), held(2, ended_at=NOW - 8, expires_at=NOW + 9)),
            Reason.CAPABILITY_REVOKED,
            1,
            id="the later of two revocations in one entry",
        ),
        pytest.param(
            (held(1, ended_at=NOW - 8, expires_at=NOW + 9), held(2, ended_at=NOW - 7)),
            Reason.CAPABILITY_REVOKED,
            2,
            id="the same two the other way round",
        ),
    ],
)
def test_a_denial_tells_the_latest_end(
    capabilities: tuple[HeldCapability, ...], reason: Reason, closest: int
) -> None:
    decision = decided(*capabilities)
    assert decision.reason is reason
    assert decision.capability is not None
    assert decision.capability.id == identifier(closest)


def test_a_living_capability_that_has_expired_since_is_compared_with_the_ended_ones() -> None:
    read_before = holding(held(1, expires_at=NOW), held(2, ended_at=NOW - 1), now=NOW - 2)
    decision = decide(read_before, asking(), NOW)
    assert decision.reason is Reason.CAPABILITY_EXPIRED
    read_before = holding(held(1, expires_at=NOW - 1), held(2, ended_at=NOW), now=NOW - 2)
    decision = decide(read_before, asking(), NOW)
    assert decision.reason is Reason.CAPABILITY_REVOKED


def test_a_capability_not_valid_yet_comes_before_those_that_have_ended() -> None:
    decision = decided(
        held(1, ended_at=NOW - 1), held(2, expires_at=NOW - 1), held(3, not_before=NOW + 1)
    )
    assert decision.reason is Reason.NOT_YET_VALID
    assert decision.capability is not None
    assert decision.capability.id == identifier(3)


def test_a_capability_not_valid_yet_comes_before_one_that_has_expired_since() -> None:
    for patterns in (("doc:**", "doc:reports/**"), ("doc:reports/**", "doc:**")):
        first, second = patterns
        read_before = holding(
            held(1, first, expires_at=NOW), held(2, second, not_before=NOW + 1), now=NOW - 1
        )
        assert decide(read_before, asking(), NOW).reason is Reason.NOT_YET_VALID


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_of_those_not_valid_yet_the_first_to_become_valid_is_named(order: tuple[int, ...]) -> None:
    # In one entry, which expiry orders, and across entries.
    expiries = dict(zip(order, (NOW + 10, NOW + 11, NOW + 12), strict=True))
    patterns = {1: "doc:reports/**", 2: "doc:reports/**", 3: "doc:**"}
    decision = decided(
        *(held(n, patterns[n], not_before=NOW + n, expires_at=expiries[n]) for n in order)
    )
    assert decision.capability is not None
    assert decision.capability.id == identifier(1)


def test_a_valid_capability_wins_over_everything_else() -> None:
    decision = decided(
        held(1, not_before=NOW + 1),
        held(2, "doc:reports/2026", ended_at=NOW - 1),
        held(3, "doc:reports/2026", expires_at=NOW - 1),
        held(4, not_before=NOW + 2, expires_at=NOW + 3),
        held(5, expires_at=NOW + 1),
        held(6, "doc:reports/2026", not_before=NOW + 1),
    )
    assert decision.allowed
    assert decision.capability is not None
    assert decision.capability.id == identifier(5)
    assert decision.valid_until == NOW + 1


def test_an_expired_capability_hides_nothing_of_another_pattern() -> None:
    # Both are living in memory, and one expired since.
    read_before = holding(
        held(1, "doc:reports/2026", expires_at=NOW), held(2, "doc:**"), now=NOW - 1
    )
    assert decide(read_before, asking(), NOW).allowed


@pytest.mark.parametrize(
    ("only", "reason"),
    [
        (1, Reason.GRANTED),
        (2, Reason.NOT_YET_VALID),
        (3, Reason.CAPABILITY_EXPIRED),
        (4, Reason.CAPABILITY_REVOKED),
        (5, Reason.NO_CAPABILITY),
        (6, Reason.NO_CAPABILITY),
        (7, Reason.NO_CAPABILITY),
    ],
)
def test_only_the_capability_that_the_request_names_counts(only: int, reason: Reason) -> None:
    decision = decided(
        held(1),
        held(2, not_before=NOW + 1),
        held(3, expires_at=NOW - 1),
        held(4, ended_at=NOW - 1),
        held(5, allowed="write"),
        held(6, "doc:other"),
        request=asking(only=only),
    )
    assert decision.reason is reason
    assert decision.capability is None or decision.capability.id == identifier(only)


def test_a_named_capability_is_found_behind_others_of_its_entry() -> None:
    capabilities = [held(n, expires_at=NOW + n) for n in range(1, 6)]
    assert decided(*capabilities, request=asking(only=1)).allowed
    # Those in front may have expired since, and so has the one that is named.
    read_before = holding(*capabilities, now=NOW)
    decision = decide(read_before, asking(only=1), Instant(NOW + 1))
    assert decision.reason is Reason.CAPABILITY_EXPIRED


@pytest.mark.parametrize(
    ("capability", "sentence"),
    [
        (None, f"{HOLDER} holds no capability for {WHAT}"),
        (held(1), f"capability {identifier(1)} allows {WHAT}"),
        (
            held(1, not_before=NOW + 1),
            f"capability {identifier(1)} allows {WHAT} from 2027-01-15T08:00:00.000001+00:00 on",
        ),
        (
            held(1, expires_at=NOW),
            f"capability {identifier(1)} allowed {WHAT} until it expired at {AT}",
        ),
        (
            held(1, ended_at=NOW),
            f"capability {identifier(1)} allowed {WHAT} until it was revoked at {AT}",
        ),
    ],
)
def test_a_decision_is_described_in_one_sentence(
    capability: HeldCapability | None, sentence: str
) -> None:
    decision = decided() if capability is None else decided(capability)
    assert describe(decision, asking()) == sentence


@pytest.mark.parametrize(
    "capability",
    [
        held(1),
        held(1, expires_at=NOW),
        held(1, not_before=NOW + 1),
        held(1, ended_at=NOW - 1),
        held(1, "doc:other"),
    ],
    ids=["valid", "expired", "not yet valid", "revoked", "of something else"],
)
def test_of_all_reasons_a_suspension_comes_first(capability: HeldCapability) -> None:
    suspended = holding(capability, standing=Standing.SUSPENDED)
    for request in (asking(), asking(only=1)):
        decision = decide(suspended, request, NOW)
        assert decision == denied(Reason.PRINCIPAL_SUSPENDED, None)
        assert describe(decision, request) == f"{HOLDER} is suspended"
    # What would be said without it is shown all the same.
    assert explain(suspended, asking(), NOW) == explain(holding(capability), asking(), NOW)


def test_what_a_disabled_user_holds_counts() -> None:
    disabled = holding(held(1), standing=Standing.DISABLED)
    assert decide(disabled, asking(), NOW).allowed
    assert disabled.is_barred
    assert not holding(held(1)).is_barred


def test_the_values_that_are_stored_and_sent_stay() -> None:
    assert set(Reason) == {
        "GRANTED",
        "NO_CAPABILITY",
        "CAPABILITY_EXPIRED",
        "CAPABILITY_REVOKED",
        "NOT_YET_VALID",
        "CONDITION_FAILED",
        "POLICY_DENIED",
        "POLICY_ERROR",
        "RATE_LIMITED",
        "OUTSIDE_TIME_WINDOW",
        "MFA_REQUIRED",
        "SECURITY_LEVEL_TOO_LOW",
        "SESSION_REQUIRED",
        "APPROVAL_REQUIRED",
        "PRINCIPAL_SUSPENDED",
    }
    assert set(EndCause) == {"REVOKED", "CASCADE", "EXPIRED", "SESSION_ENDED", "USED"}
