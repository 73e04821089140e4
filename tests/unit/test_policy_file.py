"""A file of policies that is followed: what is new is put, and nothing lifts what holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typing_extensions import override

from licet.app.policies import ManagePolicies, PolicySetPut, PutPolicySetCommand
from licet.app.policy_file import PolicyFileError, PutPolicyFile
from licet.app.policy_ports import StoredPolicySet
from licet.app.ports import Confirmation, Deadline
from licet.domain.caller import Identity
from licet.domain.errors import NotFoundError, UnavailableError
from licet.policies.reading import Documents
from licet.steward.policy_file import MAX_BYTES, PolicyFileThread, read_policy_file
from tests.fakes.postgres import eventually
from tests.unit.builders import CALLER, NOW, PATIENT
from tests.unit.policies import document


class Puts:
    """Takes texts; refuses what says `bad`, and fails while it is told to."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.asked = 0
        self.fails = False

    def __call__(self, source: str, deadline: Deadline) -> int | None:
        assert deadline is PATIENT
        self.asked += 1
        if self.fails:
            raise UnavailableError("the database is away")
        if "bad" in source:
            raise PolicyFileError("p.yaml:1:1: it is bad")
        if self.taken[-1:] == [source]:
            return None
        self.taken.append(source)
        return len(self.taken)


class Followed:
    """A file, what follows it, and what was put."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.puts = Puts()
        self.thread = PolicyFileThread(path, self.puts, lambda _: PATIENT, 0.01)

    def looks(self, count: int = 2) -> list[str]:
        """Look so often, and return all that was put so far."""
        for _ in range(count):
            self.thread.look()
        return self.puts.taken


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    path = tmp_path / "p.yaml"
    path.write_text("one", encoding="utf-8")
    return Followed(path)


def test_what_was_the_same_in_two_looks_is_put_once(followed: Followed) -> None:
    assert followed.looks(1) == []
    assert followed.looks(1) == ["one"]
    assert followed.looks(5) == ["one"]
    assert followed.puts.asked == 1


def test_what_is_being_written_is_not_put(followed: Followed) -> None:
    followed.looks()
    with followed.path.open("w", encoding="utf-8") as file:
        for part in ("tw", "o and", " more"):
            file.write(part)
            file.flush()
            assert followed.looks(1) == ["one"]
    assert followed.looks(1) == ["one", "two and more"]


def test_a_file_that_is_replaced_by_another_is_put(followed: Followed) -> None:
    followed.looks()
    for number in range(3):
        fresh = followed.path.with_suffix(".new")
        fresh.write_text(f"version {number}", encoding="utf-8")
        fresh.replace(followed.path)
        assert followed.looks()[-1] == f"version {number}"


def test_a_change_that_leaves_size_and_time_is_seen(followed: Followed) -> None:
    before = followed.path.stat()
    followed.looks()
    followed.path.write_text("two", encoding="utf-8")
    os.utime(followed.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert followed.looks() == ["one", "two"]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _blank(path: Path) -> None:
    path.write_bytes(b" \n\n")


def _not_utf8(path: Path) -> None:
    path.write_bytes(b"one\xff")


def _null(path: Path) -> None:
    path.write_bytes(b"one\0")


def _long(path: Path) -> None:
    path.write_bytes(b"x" * (MAX_BYTES + 1))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _bad(path: Path) -> None:
    path.write_text("bad", encoding="utf-8")


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (Path.unlink, "No such file"),
        (_dangling, "No such file"),
        (_empty, "is empty"),
        (_blank, "is empty"),
        (_not_utf8, "is not UTF-8"),
        (_null, "holds U+0000"),
        (_long, "has more than"),
        (_folder, "Is a directory"),
        (_pipe, "is no file"),
        (_bad, "p.yaml:1:1: it is bad"),
    ],
)
def test_what_cannot_be_used_is_said_once_and_changes_nothing(
    followed: Followed,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    why: str,
) -> None:
    followed.looks()
    with caplog.at_level(logging.ERROR):
        spoil(followed.path)
        assert followed.looks(5) == ["one"]

    [record] = caplog.records
    assert why in record.getMessage()
    assert "those that held still hold" in record.getMessage()

    if followed.path.is_dir():
        followed.path.rmdir()
    else:
        followed.path.unlink(missing_ok=True)
    followed.path.write_text("two", encoding="utf-8")
    assert followed.looks() == ["one", "two"]


def test_what_could_not_be_put_is_tried_again(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    followed.puts.fails = True
    with caplog.at_level(logging.WARNING):
        assert followed.looks(4) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"the policies of {followed.path} are not put yet: the database is away"
    ]

    followed.puts.fails = False
    assert followed.looks(1) == ["one"]


def test_a_bug_does_not_end_the_thread(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def fails_once(source: str, deadline: Deadline) -> int | None:
        calls.append(source)
        if len(calls) == 1:
            raise RuntimeError
        return followed.puts(source, deadline)

    thread = PolicyFileThread(followed.path, fails_once, lambda _: PATIENT, 0.01)
    thread.start()
    assert eventually(lambda: followed.puts.taken == ["one"])
    thread.stop()

    assert "are not looked at" in caplog.text


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError) as raised:
        read_policy_file(tmp_path / "a\nb\x1b[31m")

    assert str(raised.value).startswith(f"{tmp_path}/a\\nb\\x1b[31m: No such file")


def test_a_file_is_read_whole(followed: Followed) -> None:
    followed.path.write_bytes("ä".encode() * (MAX_BYTES // 2))

    assert read_policy_file(followed.path) == "ä" * (MAX_BYTES // 2)


class Holding(ManagePolicies):
    """Holds one document, and takes note of what is to take its place."""

    def __init__(self, version: int, source: str) -> None:
        self.held = StoredPolicySet(version, source, "", None, NOW, CALLER, 1)
        self.commands: list[tuple[PutPolicySetCommand, Identity]] = []

    @override
    def get(self, version: int | None, deadline: Deadline) -> StoredPolicySet:
        assert version is None
        if not self.held.version:
            raise NotFoundError("there is none")
        return self.held

    @override
    def put(
        self, command: PutPolicySetCommand, caller: Identity, deadline: Deadline
    ) -> PolicySetPut:
        self.commands.append((command, caller))
        return PolicySetPut(self.held.version + 1, 9, 1, Confirmation(1, 0))


@pytest.mark.parametrize("version", [0, 7])
def test_it_is_put_over_what_was_seen_and_nothing_else(version: int) -> None:
    held, new = document("name: a, deny: never"), document("name: b, deny: never")
    policies = Holding(version, held)
    put = PutPolicyFile(policies, Documents(), "/x/" + "ä" * 1000)

    assert put(new, PATIENT) == version + 1
    if version:
        assert put(held, PATIENT) is None

    [(command, caller)] = policies.commands
    assert (command.source, command.expected_version) == (new, version)
    assert len(command.comment.encode()) <= 1024
    assert caller.caller == "caller:policy-file"
