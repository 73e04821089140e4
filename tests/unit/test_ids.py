"""Ids: of the right version, in order whatever the clock does, and never twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from uuid import RFC_4122, UUID

from licet.writer.ids import TimeOrderedIds, audit_writer_id
from tests.unit.builders import NOW, StillClock


def milliseconds(capability_id: str) -> int:
    return UUID(capability_id).int >> 80


def test_a_capability_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    capability_id = TimeOrderedIds(StillClock(NOW + 999)).capability_id()
    assert UUID(capability_id).version == 7
    assert UUID(capability_id).variant == RFC_4122
    assert milliseconds(capability_id) == NOW // 1000
    assert capability_id == str(UUID(capability_id))


def test_ids_increase_within_a_millisecond_and_past_its_counter() -> None:
    ids = TimeOrderedIds(StillClock())
    made = [ids.capability_id() for _ in range(5000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all(UUID(capability_id).version == 7 for capability_id in made)
    # A counter of 12 bits, then the next millisecond is borrowed.
    assert milliseconds(made[4095]) == NOW // 1000
    assert milliseconds(made[4096]) == NOW // 1000 + 1


def test_ids_increase_when_the_clock_steps_back() -> None:
    clock = StillClock()
    ids = TimeOrderedIds(clock)
    before = ids.capability_id()
    clock.instant = type(clock.instant)(NOW - 3_600_000_000)
    assert before < ids.capability_id() < ids.capability_id()


def test_ids_follow_the_clock_when_it_goes_on() -> None:
    clock = StillClock()
    ids = TimeOrderedIds(clock)
    before = ids.capability_id()
    clock.instant = type(clock.instant)(NOW + 1000)
    after = ids.capability_id()
    assert milliseconds(after) - milliseconds(before) == 1


def test_threads_never_get_the_same_place_in_the_order() -> None:
    ids = TimeOrderedIds(StillClock())

    def many(_: int) -> list[str]:
        return [ids.capability_id() for _ in range(500)]

    with ThreadPoolExecutor(8) as pool:
        made = [capability_id for each in pool.map(many, range(8)) for capability_id in each]
    # The random end aside.
    assert len({UUID(capability_id).int >> 64 for capability_id in made}) == 4000


def test_the_random_end_differs_between_processes_of_one_millisecond() -> None:
    ends = {
        UUID(TimeOrderedIds(StillClock()).capability_id()).int & (1 << 62) - 1 for _ in range(9)
    }
    assert len(ends) == 9


def test_a_request_id_has_128_random_bits() -> None:
    ids = TimeOrderedIds(StillClock())
    made = {ids.request_id() for _ in range(100)}
    assert len(made) == 100
    assert all(len(bytes.fromhex(request_id)) == 16 for request_id in made)


def test_an_audit_writer_has_48_bits_that_begin_with_the_time() -> None:
    clock = StillClock()
    writer_id = audit_writer_id(clock)
    assert writer_id >> 16 == NOW // 1_000_000 - 1_577_836_800
    assert writer_id < 1 << 48
    # One process makes none twice, and 2,000 numbers of 16 bits would have some.
    assert len({audit_writer_id(clock) for _ in range(2000)}) == 2000
