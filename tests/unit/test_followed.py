"""Files that are replaced: what is new is taken whole, and what is broken leaves what was there."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from licet.server.followed import Contents, FileRefusedError, Followed, read_file
from tests.fakes.tls import Folder


def parse(contents: Contents) -> str:
    """Take two texts that are the same: a pair that belongs together."""
    first, second = (content.decode() for content in contents)
    if first != second:
        raise FileRefusedError(f"{first} is not {second}")
    return first


class Pair:
    """Two files, and what follows them."""

    def __init__(self, folder: Folder, inside: str = "") -> None:
        self.folder = folder
        self.followed = Followed("pair", lambda: self._read(folder.path / inside), parse)

    @staticmethod
    def _read(place: Path) -> Contents:
        return tuple(read_file("A_SETTING", place / name) for name in ("a", "b"))

    def looks(self, count: int) -> str:
        for _ in range(count):
            self.followed.look()
        return self.followed.current


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Provide a folder with a pair in it."""
    folder = Folder(tmp_path)
    for name in ("a", "b"):
        folder.write(name, b"1")
    return folder


def test_what_is_new_is_taken_when_it_has_settled(folder: Folder) -> None:
    pair = Pair(folder)
    folder.write("a", b"2")
    folder.write("b", b"2")
    assert (pair.looks(1), pair.looks(1), pair.followed.failures) == ("1", "2", 0)


def test_half_of_a_pair_is_not_taken_and_is_no_failure_yet(folder: Folder) -> None:
    pair = Pair(folder)
    folder.write("a", b"2")
    assert pair.looks(1) == "1"
    folder.write("b", b"2")
    assert (pair.looks(1), pair.looks(1), pair.followed.failures) == ("1", "2", 0)


def test_what_is_broken_is_said_once_and_what_was_there_stays(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pair = Pair(folder)
    folder.write("a", b"2")
    assert (pair.looks(5), pair.followed.failures) == ("1", 1)
    assert [r.message for r in caplog.records] == [
        "the new pair cannot be used, the former stays: 2 is not 1"
    ]
    (folder.path / "b").unlink()
    assert (pair.looks(5), pair.followed.failures) == ("1", 2)
    assert "A_SETTING: cannot read" in caplog.text
    folder.write("b", b"2")
    assert (pair.looks(5), pair.followed.failures) == ("2", 2)
    # The same fault again is another one.
    (folder.path / "b").unlink()
    assert (pair.looks(5), pair.followed.failures) == ("2", 3)
    folder.write("b", b"2")
    pair.looks(2)
    (folder.path / "b").unlink()
    assert (pair.looks(5), pair.followed.failures) == ("2", 4)
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR", "INFO", "ERROR", "ERROR"]


def test_a_symbolic_link_that_is_turned_is_followed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.link("..data", {"a": b"1", "b": b"1"})
    pair = Pair(folder, "..data")
    folder.link("..data", {"a": b"2", "b": b"2"})
    assert (pair.looks(2), pair.followed.failures) == ("2", 0)


def test_what_was_refused_is_tried_again(folder: Folder) -> None:
    """As a certificate is that is not valid yet."""
    valid = False

    def picky(contents: Contents) -> str:
        if contents[0] != b"1" and not valid:
            raise FileRefusedError("not yet")
        return contents[0].decode()

    followed = Followed("file", lambda: (read_file("A", folder.path / "a"),), picky)
    folder.write("a", b"2")
    for _ in range(3):
        followed.look()
    assert (followed.current, followed.failures) == ("1", 1)
    valid = True
    followed.look()
    assert (followed.current, followed.failures) == ("2", 1)


def test_without_files_nothing_begins(folder: Folder) -> None:
    (folder.path / "a").unlink()
    with pytest.raises(FileRefusedError, match="A_SETTING: cannot read"):
        Pair(folder)
