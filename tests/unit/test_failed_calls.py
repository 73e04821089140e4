"""Calls that were not let in: counted for each caller, and never without bound."""

from __future__ import annotations

import pytest

from licet.domain.errors import UnavailableError
from licet.server.failures import MAX_CALLERS, OTHERS, FailedCalls, address_of, network_of


class Log:
    """Notes what is recorded."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.recorded: list[tuple[str, str, int]] = []
        self._is_full = is_full

    def record(self, who: str, why: str, count: int, seconds: float) -> None:
        assert seconds >= 0
        if self._is_full:
            raise UnavailableError("the spool is full")
        self.recorded.append((who, why, count))


def test_each_caller_is_one_event_an_interval() -> None:
    log = Log()
    failures = FailedCalls(log.record)
    for _ in range(1000):
        failures.note("address:a", "X")
    failures.note("address:a", "Y")
    failures.note("address:b", "X")
    failures.flush()
    assert log.recorded == [("address:a", "X", 1000), ("address:a", "Y", 1), ("address:b", "X", 1)]
    failures.flush()
    assert len(log.recorded) == 3
    assert failures.total == 1002


def test_those_without_a_place_are_counted_together() -> None:
    log = Log()
    failures = FailedCalls(log.record)
    for number in range(MAX_CALLERS + 500):
        failures.note(f"address:{number}", "X")
    failures.note("address:0", "X")
    failures.flush()
    assert len(log.recorded) == MAX_CALLERS + 1
    assert log.recorded[0] == ("address:0", "X", 2)
    assert log.recorded[-1] == (OTHERS, "X", 500)


def test_a_log_that_takes_nothing_stops_nobody() -> None:
    failures = FailedCalls(Log(is_full=True).record)
    failures.note("address:a", "X")
    failures.flush()
    failures.note("address:a", "X")
    assert failures.total == 2


def test_what_was_counted_is_recorded_at_the_end() -> None:
    log = Log()
    failures = FailedCalls(log.record, seconds=60)
    failures.start()
    failures.note("address:a", "X")
    failures.stop()
    assert log.recorded == [("address:a", "X", 1)]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5000", "127.0.0.1"),
        ("ipv6:[::1]:5000", "::1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("unix:", "unix"),
        ("unix:/tmp/mine", "unix"),
        ("unix-abstract:mine", "unix"),
        ("", "unknown"),
    ],
)
def test_an_address_has_no_port(peer: str, address: str) -> None:
    assert address_of(peer) == address


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::1%5D:7", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:5000", "fe80::/64"),
        ("ipv6:[::ffff:192.0.2.1]:5000", "192.0.2.1"),
        ("unix:", "unix"),
    ],
)
def test_addresses_of_one_network_are_counted_together(peer: str, network: str) -> None:
    assert network_of(peer) == network
