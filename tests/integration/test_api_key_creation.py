"""API keys as they are made and listed: what a key may be, and who learns what of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from google.protobuf.duration_pb2 import Duration

from licet.domain import api_key
from licet.v1 import authorization_pb2 as az
from licet.v1 import identity_pb2 as pb
from tests.fakes.api import refused, rows, timestamp
from tests.fakes.callers import As, calling, holding, make_key
from tests.fakes.serving import Served


@pytest.fixture
def admin(served: Served) -> Iterator[As]:
    """Provide the services of a server on loopback, called by nobody in particular: the admin."""
    with calling(served.address) as services:
        yield services


def test_the_database_has_only_a_digest(served: Served, admin: As) -> None:
    made = make_key(admin, "read")
    token = api_key.parse(made.token)
    assert token is not None
    assert token.key_id == made.key.key_id
    stored = rows(served.database, "SELECT secret_sha256 FROM licet.api_keys")
    assert [bytes(digest) for (digest,) in stored] == [
        hashlib.sha256(token.secret.encode()).digest()
    ]


def test_a_repeated_creation_returns_the_key_and_never_its_secret(admin: As) -> None:
    first = make_key(admin, "read", request_id="r")
    again = make_key(admin, "read", request_id="r")
    assert again.key == first.key
    assert (again.revision, again.token) == (first.revision, "")
    assert first.token
    other = refused(lambda: make_key(admin, "audit", request_id="r"))
    assert other.reason == "REQUEST_ID_REUSED"


def test_keys_are_listed_page_by_page(admin: As) -> None:
    made = {make_key(admin, "read").key.key_id for _ in range(5)}
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListApiKeysRequest(page_size=2, page_token=token)
        page = admin.identity.ListApiKeys(request, timeout=10)
        found += [key.key_id for key in page.keys]
        token = page.next_page_token
        if not token:
            break
    assert found == sorted(made)
    request = pb.ListApiKeysRequest(page_size=2)
    token = admin.identity.ListApiKeys(request, timeout=10).next_page_token
    other = pb.ListApiKeysRequest(page_token=token, include_ended=True)
    assert refused(lambda: admin.identity.ListApiKeys(other, timeout=10)).fields == ("page_token",)


def test_keys_are_listed_by_whom_they_act_as_and_by_who_made_them(
    served: Served, admin: As
) -> None:
    maker = make_key(admin, "admin", principal="user:alice")
    with holding(served.address, maker.token) as alice:
        gate = make_key(alice, "authorize")
        laptop = make_key(alice, "authorize", principal="user:alice")

    def listed(**wanted: object) -> set[str]:
        request = pb.ListApiKeysRequest(**wanted)  # type: ignore[arg-type] # any field
        return {key.key_id for key in admin.identity.ListApiKeys(request, timeout=10).keys}

    made, own, theirs = (key.key.key_id for key in (maker, gate, laptop))
    assert listed() == {made, own, theirs}
    assert listed(caller="user:alice") == {made, theirs}
    assert listed(created_by="user:alice") == {own, theirs}
    assert listed(created_by="user:alice", caller="user:alice") == {theirs}
    assert listed(caller="user:bob") == set()
    assert refused(lambda: listed(created_by="alice")).fields == ("created_by",)


def test_watchers_see_that_a_revision_was_and_no_key(served: Served, admin: As) -> None:
    watch = admin.authorization.WatchChanges(az.WatchChangesRequest(after_revision=0), timeout=30)
    assert next(watch).HasField("heartbeat")
    make_key(admin, "read")
    change = next(watch).change
    assert (change.revision, list(change.principals), change.everything) == (1, [], False)
    served.grant("agent:a", "read", "doc:a")
    assert list(next(watch).change.principals) == ["agent:a"]
    watch.cancel()


def test_what_a_key_may_be_is_checked(admin: As) -> None:
    def asked(**fields: object) -> tuple[str, ...]:
        request = {"name": "n", "scopes": ["read"]} | fields
        message = pb.CreateApiKeyRequest(**request)  # type: ignore[arg-type] # any field
        return refused(lambda: admin.identity.CreateApiKey(message, timeout=10)).fields

    assert asked(name="") == ("name",)
    assert asked(name="x" * 129) == ("name",)
    assert asked(scopes=[]) == ("scopes",)
    assert asked(scopes=["read", "read"]) == ("scopes",)
    assert asked(scopes=["read", "root"]) == ("scopes[1]",)
    assert asked(principal="alice") == ("principal",)
    for own in ("key:0123456789abcdef", "caller:anonymous", "service:licet", "address:::1"):
        assert asked(principal=own) == ("principal",)
    assert asked(limits=pb.Limits(resources=["doc:a*"])) == ("limits.resources[0]",)
    assert asked(limits=pb.Limits(principals=["agent:a", "b"])) == ("limits.principals[1]",)
    assert asked(limits=pb.Limits(principals=["agent:a"] * 33)) == ("limits.principals",)
    assert asked(limits=pb.Limits(resources=["doc:" + "a" * 1000] * 9)) == ("limits",)
    assert asked(expires_at=timestamp(1)) == ("expires_at",)
    assert asked(expires_at=timestamp(1), ttl=Duration(seconds=1)) == ("ttl",)


def test_a_key_does_not_live_beyond_the_calendar(admin: As) -> None:
    far = Duration(seconds=100 * 366 * 86_400)
    assert make_key(admin, "read", ttl=far).token
    too_far = refused(lambda: make_key(admin, "read", ttl=Duration(seconds=far.seconds + 1)))
    assert too_far.fields == ("ttl",)
