"""Random messages through a real channel: each is answered or refused, and none meets a bug."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fakes.api import capability_ids, count
from tests.fakes.hostile import (
    DOUBLES,
    INVALID,
    ITS_FAULT,
    NUMBERS,
    TEXTS,
    UNARY,
    UNKNOWN,
    VALID,
    Code,
    assert_survived,
)
from tests.fakes.postgres import Cluster, Database
from tests.fakes.serving import Served, failure, serving


@pytest.fixture(scope="module")
def hostile(cluster: Cluster, migrated_template: Database) -> Iterator[Served]:
    """Provide a server that all tests here attack in turn."""
    with cluster.database(migrated_template) as database, serving(database) as served:
        yield served


@pytest.fixture(autouse=True)
def survives(hostile: Served) -> Iterator[None]:
    """Whatever a test did, the service still grants, decides, records and revokes."""
    yield
    assert_survived(hostile)


class Fuzzer:
    """Makes random messages of a type, near enough to valid ones that some are accepted."""

    def __init__(self, rng: random.Random) -> None:
        """Take the randomness from here."""
        self._rng = rng
        self._density = 0.5
        self.capability_ids = [UNKNOWN, "", "x"]

    def message(self, valid: Message) -> Message:
        """Return a message of this one's type: a valid one with changes, or anything."""
        message = type(valid)()
        if self._rng.random() < 0.7:
            message.CopyFrom(valid)
        self._density = self._rng.choice((0.05, 0.1, 0.5))
        self._fill(message, 0)
        return message

    def _fill(self, message: Message, depth: int) -> None:
        for field in message.DESCRIPTOR.fields:
            if self._rng.random() < (self._density if depth < 6 else 0.2):
                self._set(message, field, depth)

    def _set(self, message: Any, field: Any, depth: int) -> None:  # noqa: ANN401 - fields by name
        name = field.name
        entry = field.message_type is not None and field.message_type.GetOptions().map_entry
        if entry:
            for _ in range(self._rng.randrange(3)):
                self._fill(getattr(message, name)[self._text("key")], depth + 1)
        elif field.is_repeated:
            for _ in range(self._rng.choice((0, 1, 1, 2, 3, 40))):
                if field.message_type:
                    self._fill(getattr(message, name).add(), depth + 1)
                else:
                    getattr(message, name).append(self._scalar(field))
        elif field.message_type:
            getattr(message, name).SetInParent()
            self._fill(getattr(message, name), depth + 1)
        else:
            setattr(message, name, self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:  # noqa: ANN401 - of the field's type
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field.name)
        if field.name == "null_value":
            return 0
        choices: dict[int, Sequence[float]] = {
            FieldDescriptor.TYPE_BOOL: (False, True),
            FieldDescriptor.TYPE_DOUBLE: DOUBLES,
            FieldDescriptor.TYPE_ENUM: (-1, 0, 1, 2, 3),
            FieldDescriptor.TYPE_UINT32: (0, 1, 64, 65, 2**32 - 1),
            FieldDescriptor.TYPE_INT32: (0, 1, 100, 2**31 - 1, -(2**31)),
            FieldDescriptor.TYPE_INT64: (0, 60, 4_000_000_000, *NUMBERS),
        }
        return self._rng.choice(choices[field.type])

    def _text(self, name: str) -> str:
        rng = self._rng
        if rng.random() < 0.2:
            return "".join(chr(rng.choice((rng.randrange(0xD800), 0x1F642))) for _ in range(9))
        choices: dict[str, Sequence[str]] = {
            "principal": ("agent:a", "agent:b", "user:ü"),
            "action": ("read", "write.all", "*"),
            "actions": ("read", "write.all", "list", "*"),
            "resource": ("doc:x", "doc:a/b", "doc:a/*", "doc:**"),
            "condition": ("", "", "", "true"),
            "capability_id": self.capability_ids,
            "parent_capability_id": self.capability_ids,
            "event_types": ("grant", "revoke", "x"),
            "page_token": ("", "", "x"),
            "granted_by": ("caller:anonymous", ""),
        }
        return rng.choice(choices.get(name, ("", "a", "key-1", *TEXTS[2:])))


def _rng() -> random.Random:
    # pytest-randomly seeds the module and prints its seed, with which a failure is repeated.
    seed = random.getrandbits(32)
    print(f"seed {seed}")  # noqa: T201 - shown with a failure
    return random.Random(seed)


def test_thousands_of_random_messages_never_meet_a_bug(hostile: Served) -> None:
    rng = _rng()
    fuzzer = Fuzzer(rng)
    before = capability_ids(hostile.database)
    codes: dict[str, Counter[grpc.StatusCode]] = {method: Counter() for method in UNARY}
    waiting: deque[tuple[str, Message, grpc.Future[Any]]] = deque()
    granted: set[str] = set()

    def settle() -> None:
        method, request, call = waiting.popleft()
        error = call.exception()
        code = Code.OK if error is None else failure(error).code  # type: ignore[arg-type] # an RpcError
        assert code is Code.OK or code in ITS_FAULT, (code, method, request)
        codes[method][code] += 1
        if method == "Grant" and error is None:
            granted.add(call.result().capability.id)
            fuzzer.capability_ids.append(call.result().capability.id)

    for _ in range(2500):
        method = rng.choice(UNARY)
        request = fuzzer.message(VALID[method])
        waiting.append((method, request, getattr(hostile.stub, method).future(request, timeout=20)))
        if len(waiting) >= 8:
            settle()
    while waiting:
        settle()
    # It was near enough to what is valid to reach everything, and to be refused everywhere.
    assert all(seen[Code.OK] and seen[INVALID] for seen in codes.values()), codes
    # One that was there before was granted again by its request_id, and is not a second one.
    assert capability_ids(hostile.database) == before | granted
    orphans = """SELECT count(*) FROM licet.capabilities AS c WHERE NOT EXISTS (
                   SELECT FROM audit.events AS e WHERE e.event_id = c.granted_event_id)"""
    assert count(hostile.database, orphans) == 0
