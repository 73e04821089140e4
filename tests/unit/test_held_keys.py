"""Callers from memory: what a header proves, for how long, and what is never looked up."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from licet.app.ports import AT_ONCE, Deadline, NotAtOnceError
from licet.domain import api_key
from licet.domain.api_key import KeyId
from licet.domain.caller import UNLIMITED, Identity, Scope
from licet.domain.errors import UnauthenticatedError, UnavailableError
from licet.domain.instant import Instant
from licet.domain.names import Caller
from licet.replica.api_keys import KEY_NAMES, MAX_REMEMBERED, ApiKeys, HeldKey
from licet.replica.capability_sets import Cached
from licet.replica.lease import Lease
from tests.unit.builders import NOW, PATIENT, StillClock

TAG_KEY = bytes(32)
SECRET = bytes(range(32))


def key_id(number: int) -> KeyId:
    return api_key.new_id(number.to_bytes(6, "big"), TAG_KEY)


def header(number: int, secret: bytes = SECRET) -> str:
    return f"Bearer {api_key.render(key_id(number), secret)}"


class Scene:
    """Some keys in a database, and a replica that remembers them under a lease."""

    def __init__(
        self, *numbers: int, dies_at: int | None = None, max_remembered: int = MAX_REMEMBERED
    ) -> None:
        self.stored = set(map(key_id, numbers))
        self.dies_at = None if dies_at is None else Instant(dies_at)
        self.revision = 1
        self.reads: list[set[str]] = []
        self.is_away = False
        self.time = 0.0
        self.clock = StillClock()
        self.lease = Lease(lambda: self.time)
        self.lease.extend(1.0)
        self.held = Cached(self._load, self.lease, 1 << 20, 10)
        self.keys = ApiKeys(self.held, self.clock, TAG_KEY, max_remembered)
        self.keys.reset(1)

    def who(self, text: str) -> str:
        return (self.keys.current(text) or self.keys(text, PATIENT)).key_id

    def change(self, *numbers: int) -> None:
        """Tell of a change of these keys, as the replica's thread does."""
        self.revision += 1
        self.keys.evict([KEY_NAMES + key_id(number) for number in numbers], self.revision)

    def _load(self, names: Collection[str], _: Deadline) -> Mapping[str, HeldKey]:
        self.reads.append(set(names))
        if self.is_away:
            raise UnavailableError("the database cannot be reached")
        return {name: self._key(name) for name in names}

    def _key(self, name: str) -> HeldKey:
        found = KeyId(name.removeprefix(KEY_NAMES))
        if found not in self.stored:
            return HeldKey.nobody(name, self.revision)
        token = api_key.parse(api_key.render(found, SECRET))
        assert token is not None
        identity = Identity.of(Caller(f"key:{found}"), {Scope.READ}, UNLIMITED, found)
        return HeldKey(name, self.revision, api_key.digest(token.secret), identity, self.dies_at)


def test_a_key_is_read_once_and_then_known() -> None:
    scene = Scene(1, 2)
    assert [scene.who(header(1)) for _ in range(3)] == [key_id(1)] * 3
    assert scene.who(header(2)) == key_id(2)
    assert len(scene.reads) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer",
        "Bearer ",
        header(1).removeprefix("Bearer "),
        header(1).replace("Bearer", "Basic"),
        header(1) + " ",
        header(1).replace("Bearer ", "Bearer  "),
        header(1)[:-1],
        f"Bearer {api_key.render(api_key.new_id(b'abcdef', b'another key'), SECRET)}",
    ],
)
def test_what_is_no_key_of_this_database_is_never_looked_up(text: str) -> None:
    scene = Scene(1)
    with pytest.raises(UnauthenticatedError):
        scene.who(text)
    assert scene.reads == []


def test_a_wrong_secret_and_an_unknown_key_are_the_same() -> None:
    scene = Scene(1)
    errors = []
    for text in (header(1, bytes(32)), header(9), header(9, bytes(32))):
        for _ in range(2):
            with pytest.raises(UnauthenticatedError) as raised:
                scene.who(text)
            errors.append(str(raised.value))
    assert len(set(errors)) == 1
    # Each is looked up once, however often it is tried.
    assert len(scene.reads) == 2
    assert scene.keys.drain_used() == []


def test_a_key_that_ended_is_nobodys_from_then_on() -> None:
    scene = Scene(1, 2)
    scene.who(header(1))
    scene.who(header(2))
    scene.stored.discard(key_id(1))
    scene.change(1)
    with pytest.raises(UnauthenticatedError):
        scene.who(header(1))
    assert scene.who(header(2)) == key_id(2)
    assert len(scene.reads) == 3


def test_a_change_of_principals_leaves_the_keys() -> None:
    scene = Scene(1)
    scene.who(header(1))
    scene.keys.evict(["agent:a"], 2)
    scene.who(header(1))
    assert len(scene.reads) == 1


def test_a_change_of_everything_takes_the_keys_along() -> None:
    scene = Scene(1)
    scene.who(header(1))
    scene.keys.evict(None, 1)
    scene.who(header(1))
    assert len(scene.reads) == 2


def test_nothing_is_known_when_the_lease_is_over() -> None:
    scene = Scene(1)
    scene.who(header(1))
    scene.time = 1.0
    scene.is_away = True
    with pytest.raises(UnavailableError):
        scene.who(header(1))
    scene.is_away = False
    scene.stored.clear()
    with pytest.raises(UnauthenticatedError):
        scene.who(header(1))


@pytest.mark.parametrize(("dies_at", "is_alive"), [(NOW + 1, True), (NOW, False), (NOW - 1, False)])
def test_a_key_is_dead_from_the_instant_at_which_it_ends(dies_at: int, is_alive: bool) -> None:
    scene = Scene(1, dies_at=dies_at)
    for _ in range(2):
        if is_alive:
            scene.who(header(1))
        else:
            with pytest.raises(UnauthenticatedError):
                scene.who(header(1))


def test_a_key_dies_while_it_is_remembered() -> None:
    scene = Scene(1, dies_at=NOW + 1)
    scene.who(header(1))
    scene.clock.instant = Instant(NOW + 1)
    with pytest.raises(UnauthenticatedError):
        scene.who(header(1))
    assert len(scene.reads) == 1


def test_headers_are_remembered_in_one_form_and_so_many() -> None:
    scene = Scene(*range(10), max_remembered=3)
    remembered = scene.keys._verified  # noqa: SLF001 - what memory holds is the point
    for scheme in ("bearer", "BEARER", "BeArEr"):
        scene.who(header(1).replace("Bearer", scheme))
    assert remembered == {}
    for number in range(10):
        scene.who(header(number))
        assert len(remembered) <= 3
    assert list(remembered) == [header(7), header(8), header(9)]


def test_of_keys_that_changed_no_header_is_remembered_and_of_others_all_are() -> None:
    scene = Scene(1, 2)
    for number in (1, 2):
        scene.who(header(number))
    scene.change(1)
    assert [header(number) in scene.keys.remembered for number in (1, 2)] == [False, True]
    # Whoever was verified is not to be verified anew because the database was away.
    scene.keys.reset(9)
    scene.keys.evict(None, 9)
    assert header(2) in scene.keys.remembered


def test_a_header_whose_key_has_ended_is_forgotten_when_it_comes_again() -> None:
    scene = Scene(1, 2, dies_at=NOW + 1)
    for number in (1, 2):
        scene.who(header(number))
    scene.stored.discard(key_id(1))
    scene.keys.reset(1)
    scene.clock.instant = Instant(NOW + 1)
    for number in (1, 2):
        with pytest.raises(UnauthenticatedError):
            scene.who(header(number))
        assert header(number) not in scene.keys.remembered


def test_a_header_that_was_never_verified_is_not_remembered() -> None:
    scene = Scene(1)
    with pytest.raises(UnauthenticatedError):
        scene.who(header(1, bytes(32)))
    assert header(1, bytes(32)) not in scene.keys.remembered


def test_which_keys_were_used_is_told_once() -> None:
    scene = Scene(1, 2)
    scene.who(header(1))
    scene.who(header(1))
    assert scene.keys.drain_used() == [key_id(1)]
    assert scene.keys.drain_used() == []
    scene.who(header(1))
    scene.who(header(2))
    assert set(scene.keys.drain_used()) == {key_id(1), key_id(2)}


def test_memory_says_who_calls_while_it_can_be_trusted() -> None:
    scene = Scene(1, dies_at=NOW + 1)
    assert scene.keys.current(header(1)) is None  # not verified
    scene.who(header(1))
    identity = scene.keys.current(header(1))
    assert identity is not None
    assert identity.key_id == key_id(1)
    scene.time = 1.0
    assert scene.keys.current(header(1)) is None  # no lease
    scene.lease.extend(2.0)
    scene.change(1)
    assert scene.keys.current(header(1)) is None  # perhaps it has ended
    scene.who(header(1))
    scene.keys.evict(None, 2)
    assert scene.keys.current(header(1)) is None  # the same, of all
    scene.who(header(1))
    assert len(scene.reads) == 3
    scene.clock.instant = Instant(NOW + 1)
    with pytest.raises(UnauthenticatedError):
        scene.keys.current(header(1))


def test_a_key_that_ends_while_the_lease_is_looked_at_is_nobodys() -> None:
    """The lease first, the entry second: revocation.md, step 8."""
    scene = Scene(1)
    scene.who(header(1))
    scene.stored.clear()

    def paused() -> float:
        """As if the process had stood still, and the lease had been renewed meanwhile."""
        scene.change(1)
        return 0.0

    lease = Lease(paused)
    lease.extend(1.0)
    scene.held._lease = lease  # noqa: SLF001 - the clock is read by nobody else
    assert scene.keys.current(header(1)) is None


def test_a_caller_who_is_wanted_at_once_comes_from_memory() -> None:
    scene = Scene(1)
    with pytest.raises(NotAtOnceError):
        scene.keys(header(1), AT_ONCE)
    assert scene.reads == []
    assert scene.keys.drain_used() == []
    scene.who(header(1))
    assert scene.keys(header(1), AT_ONCE).key_id == key_id(1)
    # What is no key needs no looking up.
    with pytest.raises(UnauthenticatedError):
        scene.keys("Bearer nonsense", AT_ONCE)
    scene.time = 1.0
    with pytest.raises(NotAtOnceError):
        scene.keys(header(1), AT_ONCE)
    assert len(scene.reads) == 1
