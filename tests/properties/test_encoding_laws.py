"""Answers put together by hand have the bytes that protobuf's own library gives their messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from licet.app.authorize import Answer
from licet.domain.canonical_json import EMPTY
from licet.domain.condition import Unmet
from licet.domain.decision import (
    Candidate,
    Decision,
    Explanation,
    Judgement,
    Reason,
    Request,
    Verdict,
)
from licet.domain.instant import LATEST, Instant
from licet.domain.names import Action, EventId, Principal, Resource
from licet.server import encoding, render
from licet.v1 import authorization_pb2 as pb
from licet.v1 import decision_pb2
from tests.unit.builders import held

ID = EventId("019a0000-0000-8000-8000-000000000001")
MAX_INT64 = (1 << 63) - 1

# Around the lengths at which the length itself takes another byte, and beyond what is kept of them;
# and texts whose bytes are more than their characters.
texts = st.one_of(
    st.integers(0, 300).map(lambda n: "a" * n),
    st.integers(3900, 4200).map(lambda n: "a" * n),
    st.text(max_size=9),
    st.integers(30, 150).map(lambda n: "ü" * n),
)
labels = st.just("") | st.text(min_size=1, max_size=128) | st.just("ü" * 64)
requests = st.builds(
    lambda principal, resource, correlation: Request(
        *(Principal(principal), Action("read"), Resource(resource), EMPTY),
        correlation_id=correlation,
    ),
    texts,
    texts,
    labels,
)
revisions = st.integers(0, 300) | st.integers(0, MAX_INT64)
instants = st.integers(0, LATEST).map(Instant)
passed = st.none() | st.just(Judgement(3, "", None, "", None, None))
allowed = st.builds(
    lambda until, revision, judgement: Decision(
        *(True, Reason.GRANTED, held(1), until, revision, judgement)
    ),
    st.none() | instants,
    revisions,
    passed,
)
denied = st.builds(
    lambda denial, revision: Decision(*(False, *denial[:2], None, revision, None, denial[2])),
    st.sampled_from(
        [
            (Reason.NO_CAPABILITY, None, None),
            (Reason.PRINCIPAL_SUSPENDED, None, None),
            (Reason.NOT_YET_VALID, held(1, not_before=LATEST), None),
            (Reason.CAPABILITY_EXPIRED, held(1, expires_at=5), None),
            (Reason.CAPABILITY_REVOKED, held(1, ended_at=5), None),
            (Reason.CONDITION_FAILED, held(1), Unmet("context.ü == 1", "")),
            (Reason.POLICY_ERROR, held(1), Unmet("context.x == 1", "there is no x")),
        ]
    ),
    revisions,
)
judged = st.builds(
    lambda reason, text, retry_after, revision: Decision(
        *(False, reason, held(1), None, revision),
        Judgement(3, f"no-{reason.name.lower()}", reason, text, retry_after, None),
    ),
    st.sampled_from(
        [
            *(Reason.POLICY_DENIED, Reason.POLICY_ERROR, Reason.RATE_LIMITED, Reason.MFA_REQUIRED),
            *(Reason.OUTSIDE_TIME_WINDOW, Reason.SECURITY_LEVEL_TOO_LOW, Reason.SESSION_REQUIRED),
            Reason.APPROVAL_REQUIRED,
        ]
    ),
    texts,
    st.none() | st.integers(0, LATEST),
    revisions,
)
explanations = st.sampled_from(
    [None, None, Explanation((), 0), Explanation((Candidate(held(1), Verdict.APPLIES),), 1)]
)
answers = st.builds(
    Answer,
    requests,
    allowed | denied | judged,
    st.just(ID),
    explanations,
    st.sampled_from(["", "", "019a0000-0000-7000-8000-0000000000ff"]),
)


@given(answers)
def test_an_answer_has_the_bytes_of_its_message(answer: Answer) -> None:
    assert encoding.authorize(answer) == render.authorize(answer).SerializeToString()


@given(st.lists(answers, max_size=5))
def test_several_have_the_bytes_of_theirs(several: list[Answer]) -> None:
    encoded = encoding.several(several)
    assert encoded == render.batch(several).SerializeToString()
    assert encoded == render.stream(several).SerializeToString()


def test_every_reason_has_its_number() -> None:
    request = Request(Principal("agent:a"), Action("read"), Resource("doc:a"))
    for reason in Reason:
        # One that `describe` knows by itself; which goes with which is not the matter here.
        decision = Decision(reason is Reason.GRANTED, reason, None, None, 1)
        response = pb.AuthorizeResponse.FromString(
            encoding.authorize(Answer(request, decision, ID, None))
        )
        assert decision_pb2.Reason.Name(response.reason) == f"REASON_{reason.name}"
        allowed = response.decision == decision_pb2.DECISION_ALLOW
        assert allowed == (reason is Reason.GRANTED)
