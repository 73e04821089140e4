"""Who may use a spool's folder: its owner while it lives, then one adopter, then nobody."""

from __future__ import annotations

import fcntl
from collections import Counter
from pathlib import Path
from threading import Barrier, Event, Lock, Thread

import pytest

from licet.domain.errors import UnavailableError
from licet.spool.folder import SpoolFolder
from tests.fakes.spool import PATIENCE, WRITER, leaves_of, recover, writing


def test_the_folder_of_a_living_writer_is_not_adopted(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        writer.append(b"one")
        assert SpoolFolder.adopt(tmp_path) is None
    assert recover(tmp_path) == (leaves_of([b"one"]), [])


def test_an_adopted_folder_is_adopted_by_nobody_else_and_removed(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        writer.append(b"one")
    adopted = SpoolFolder.adopt(tmp_path)
    assert adopted is not None
    assert adopted.writer_id == WRITER
    assert SpoolFolder.adopt(tmp_path) is None
    adopted.remove()
    assert list(tmp_path.iterdir()) == []
    assert SpoolFolder.adopt(tmp_path) is None


def test_an_adopter_that_dies_is_followed_by_another(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        writer.append(b"one")
    first = SpoolFolder.adopt(tmp_path)
    assert first is not None
    first.close()
    assert recover(tmp_path) == (leaves_of([b"one"]), [])


def test_an_adopter_that_was_overtaken_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening a folder and locking it, somebody else adopts and removes it."""
    lock = fcntl.flock
    with writing(tmp_path) as writer:
        writer.append(b"one")

    def overtake(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        other = SpoolFolder.adopt(tmp_path)
        assert other is not None
        other.remove()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", overtake)
    assert SpoolFolder.adopt(tmp_path) is None


def test_there_is_nothing_to_adopt_where_nothing_was_written(tmp_path: Path) -> None:
    assert SpoolFolder.adopt(tmp_path / "missing") is None


def test_what_is_no_spool_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "aaaaaaaaaaaa").write_text("a file with a spool's name")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bbbbbbbbbbbb").symlink_to(tmp_path / "elsewhere")
    assert SpoolFolder.adopt(tmp_path) is None
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_whose_maker_died_before_it_had_its_name_is_tidied_up(tmp_path: Path) -> None:
    (tmp_path / ".0102030405ff-01234567.new").mkdir()
    assert SpoolFolder.adopt(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_writers_id_is_used_once(tmp_path: Path) -> None:
    with (
        writing(tmp_path),
        pytest.raises(UnavailableError, match="already"),
    ):
        SpoolFolder.create(tmp_path, WRITER)


def test_removing_what_is_removed_is_no_error(tmp_path: Path) -> None:
    folder = SpoolFolder.create(tmp_path, WRITER)
    folder.path.rmdir()  # an attempt that did not hear that it had succeeded
    folder.remove()


def test_a_root_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(UnavailableError, match="cannot make"):
        SpoolFolder.create(root, WRITER)
    with pytest.raises(UnavailableError, match="cannot read"):
        SpoolFolder.adopt(root)


class Contest:
    """Owners that come and go, and adopters, all at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wrong: list[str] = []
        self.adopted: Counter[int] = Counter()
        self.over = Event()
        self.begin = Barrier(6)
        # Guards the counter, and those that live.
        self._lock = Lock()
        self._living: set[int] = set()

    def own(self, writer_ids: range) -> None:
        """Make folders, and die right away."""
        self.begin.wait(PATIENCE)
        for writer_id in writer_ids:
            with self._lock:
                self._living.add(writer_id)
            folder = SpoolFolder.create(self.root, writer_id)
            (folder.path / "file").touch()
            with self._lock:
                self._living.discard(writer_id)
            folder.close()

    def adopt(self) -> None:
        """Adopt what there is, and remove it."""
        self.begin.wait(PATIENCE)
        ending = False
        while not ending:
            ending = self.over.is_set()
            while (folder := SpoolFolder.adopt(self.root)) is not None:
                with self._lock:
                    self.adopted[folder.writer_id] += 1
                    if folder.writer_id in self._living:
                        self.wrong.append(f"{folder.writer_id} is alive")
                folder.remove()


def test_each_folder_has_one_adopter_while_owners_come_and_go(tmp_path: Path) -> None:
    contest = Contest(tmp_path)
    owners = [Thread(target=contest.own, args=[range(n, n + 40)]) for n in (0, 40, 80)]
    adopters = [Thread(target=contest.adopt) for _ in range(3)]
    for thread in (*owners, *adopters):
        thread.start()
    for thread in owners:
        thread.join(PATIENCE)
    contest.over.set()
    for thread in adopters:
        thread.join(PATIENCE)
    assert contest.wrong == []
    assert contest.adopted == Counter(range(120))
    assert list(tmp_path.iterdir()) == []
