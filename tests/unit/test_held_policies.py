"""The policies from memory: under the lease, compiled once, and never left aside."""

from __future__ import annotations

import pytest

from licet.app.ports import Deadline
from licet.domain.document import DocumentError, Fault, Place
from licet.domain.errors import UnavailableError
from licet.domain.policy_set import PolicySet
from licet.policies.reading import compile_set
from licet.replica.lease import Lease
from licet.replica.policies import POLICY_NAME, HeldPolicySet
from tests.unit.builders import PATIENT
from tests.unit.policies import document

DENY = document("name: p, deny: nope")


class Scene:
    """A database with a policy set, and a replica that remembers it under a lease."""

    def __init__(self, version: int | None = None, source: str = "") -> None:
        self.stored = (version, source)
        self.revision = 1
        self.reads = 0
        self.compiled: list[int] = []
        self.is_away = False
        self.time = 0.0
        self.lease = Lease(lambda: self.time)
        self.lease.extend(1.0)
        self.held = HeldPolicySet(self._read, self._compile, self.lease)
        self.held.reset(1)

    def put(self, version: int, source: str) -> None:
        """Put a set and tell of it, as the replica's thread does."""
        self.stored = (version, source)
        self.revision += 1
        self.held.evict([POLICY_NAME], self.revision)

    def _read(self, _: Deadline) -> tuple[int, int | None, str]:
        self.reads += 1
        if self.is_away:
            raise UnavailableError("the database cannot be reached")
        return self.revision, *self.stored

    def _compile(self, source: str, version: int) -> PolicySet:
        self.compiled.append(version)
        if source == "crash":
            raise ZeroDivisionError
        if source == "later":
            raise DocumentError(Fault(Place(3, 5), "policies[0].teleport", "is no field here"))
        return compile_set(source, version)


def test_that_there_is_none_is_remembered() -> None:
    scene = Scene()

    assert scene.held(PATIENT) is None
    assert scene.held(PATIENT) is None
    assert scene.reads == 1


def test_a_set_is_read_and_compiled_once() -> None:
    scene = Scene(1, DENY)

    first, second = scene.held(PATIENT), scene.held(PATIENT)

    assert first is not None
    assert first is second
    assert (first.version, scene.held.version) == (1, 1)
    assert (scene.reads, scene.compiled) == (1, [1])


def test_a_change_makes_it_read_again() -> None:
    scene = Scene()
    assert scene.held(PATIENT) is None

    scene.put(1, DENY)

    found = scene.held(PATIENT)
    assert found is not None
    assert found.version == 1


def test_a_change_of_something_else_does_not() -> None:
    scene = Scene(1, DENY)
    scene.held(PATIENT)

    scene.held.evict(["agent:a", "/api_keys/x", "/policy/x"], 2)
    scene.held(PATIENT)
    assert scene.reads == 1

    # Everything may have changed; but a document is compiled once all the same.
    scene.held.evict(None, 3)
    scene.revision = 3
    scene.held(PATIENT)
    assert (scene.reads, scene.compiled) == (2, [1])


def test_after_the_lease_it_is_read_and_without_a_database_nothing_is_known() -> None:
    scene = Scene(1, DENY)
    scene.held(PATIENT)

    scene.time = 1.1
    scene.held(PATIENT)
    assert scene.reads == 2
    scene.is_away = True
    with pytest.raises(UnavailableError):
        scene.held(PATIENT)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("later", r"line 3, column 5: policies\[0\].teleport is no field here"),
        ("crash", "policy set 2 cannot be used by this server"),
    ],
)
def test_a_set_that_cannot_be_used_is_not_left_aside(source: str, why: str) -> None:
    scene = Scene(1, DENY)
    scene.held(PATIENT)
    scene.put(2, source)

    for _ in range(3):
        with pytest.raises(UnavailableError, match=why):
            scene.held(PATIENT)
    assert (scene.reads, scene.compiled) == (2, [1, 2])

    scene.put(3, DENY)
    assert scene.held(PATIENT) is not None


def test_another_document_of_the_same_version_is_another_one() -> None:
    scene = Scene(1, DENY)
    scene.held(PATIENT)

    # The database was restored, and another set was put in the place of that one.
    scene.stored = (1, document())
    scene.held.reset(1)

    found = scene.held(PATIENT)
    assert found is not None
    assert not found.policies
