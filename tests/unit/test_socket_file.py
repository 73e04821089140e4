"""The file of a Unix socket: whose it is, who may open it, and what becomes of what was there."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from threading import Event, Thread

import pytest

from licet.domain.errors import UnavailableError
from licet.server.socket_file import SocketFile
from tests.fakes.ordinary_user import IS_ROOT
from tests.fakes.postgres import reachable_folder

NOBODY = 65_534
GROUP = 61_234


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen as another program does, or as gRPC does for us."""
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))
        opened.listen(1000)
        yield opened


@contextmanager
def claimed(path: Path, mode: int = 0o600) -> Iterator[SocketFile]:
    file = SocketFile(path, mode)
    file.claim()
    try:
        yield file
    finally:
        file.remove()


@contextmanager
def shown(path: Path, mode: int = 0o600, pid: int = 1) -> Iterator[SocketFile]:
    with claimed(path, mode) as file, listening(file.bound(pid)):
        file.permit(pid)
        file.show(pid)
        yield file


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "licet.sock"


def test_what_is_bound_is_found_when_it_is_shown_and_not_before(path: Path) -> None:
    with claimed(path) as file, listening(file.bound(7)):
        assert not path.exists()
        assert not file.shows(7)
        file.permit(7)
        file.show(7)
        assert file.shows(7)
        assert connects(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_whoever_may_open_it_may_from_the_first_moment_on(path: Path, mode: int) -> None:
    before = os.umask(0)
    try:
        with claimed(path, mode) as file:
            # Until it is shown nobody else comes near it, whatever its own mode is.
            folder = file.bound(1).parent
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            with listening(file.bound(1)):
                assert stat.S_IMODE(file.bound(1).stat().st_mode) == 0o777
                file.permit(1)
                file.show(1)
                assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.skipif(not IS_ROOT, reason="only root can be somebody else for a moment")
@pytest.mark.parametrize(("group", "refused"), [(NOBODY, {0o600, 0o660}), (GROUP, {0o600})])
def test_another_account_may_open_it_only_if_its_mode_says_so(
    group: int, refused: set[int]
) -> None:
    with reachable_folder() as folder, ExitStack() as stack:
        paths = {mode: folder / f"{mode:o}" for mode in (0o600, 0o660, 0o666)}
        for mode, path in paths.items():
            stack.enter_context(shown(path, mode))
            os.chown(path, -1, GROUP)
            assert connects(path)
        assert {mode for mode, path in paths.items() if is_closed(path, group)} == refused


def is_closed(path: Path, group: int) -> bool:
    """Say whether an account of a group may not open a socket, by becoming it for a moment."""
    os.setegid(group)
    os.seteuid(NOBODY)
    try:
        assert connects(path)
    except PermissionError:
        return True
    finally:
        os.seteuid(0)
        os.setegid(0)
    return False


def test_a_group_of_the_folder_is_that_of_the_socket(path: Path) -> None:
    group = NOBODY if IS_ROOT else os.getegid()
    os.chown(path.parent, -1, group)
    path.parent.chmod(0o2750)
    with shown(path, 0o660):
        assert path.stat().st_gid == group


def test_there_is_no_moment_without_one_while_two_take_turns(path: Path) -> None:
    over = Event()
    with (
        claimed(path) as file,
        listening(file.bound(1)) as first,
        listening(file.bound(2)) as second,
    ):

        def take_turns() -> None:
            for pid in cycle((2, 1)):
                file.show(pid)
                if over.is_set():
                    return

        for listener in (first, second):
            listener.settimeout(0)
        file.show(1)
        turns = Thread(target=take_turns)
        turns.start()
        found = 0
        for _ in range(3000):
            found += connects(path)
            for listener in (first, second):
                # Whose queue is full would refuse more.
                with suppress(BlockingIOError):
                    listener.accept()[0].close()
        over.set()
        turns.join()
    assert found == 3000


def test_a_socket_on_which_nobody_listens_any_more_is_replaced(path: Path) -> None:
    with listening(path):
        pass  # its file stays, as that of a process that was killed
    folder = path.with_name("licet.sock.d")
    folder.mkdir(0o700)
    with listening(folder / "99"):
        pass
    with shown(path) as file:
        assert connects(path)
        assert [left.name for left in file.bound(1).parent.iterdir()] == ["1"]


def test_a_live_server_keeps_its_socket(path: Path) -> None:
    with listening(path) as other:
        with pytest.raises(UnavailableError, match="is another server running there"):
            SocketFile(path, 0o600).claim()
        assert connects(path)
        other.accept()[0].close()


def test_one_that_cannot_take_more_is_live(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as stack:
        busy.bind(str(path))
        busy.listen(0)
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(path))
        with pytest.raises(UnavailableError, match="is another server running there"):
            SocketFile(path, 0o600).claim()


def test_two_servers_do_not_claim_one_path(path: Path) -> None:
    # Not even when the first does not listen yet.
    second = SocketFile(path, 0o600)
    with claimed(path), pytest.raises(UnavailableError, match="is another server running there"):
        second.claim()
    with claimed(path):
        pass


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.write_text("kept")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("elsewhere")
    with pytest.raises(UnavailableError, match=r"LICET_SOCKET: .* it is no socket"):
        SocketFile(path, 0o600).claim()
    assert os.path.lexists(path)


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_have_made_is_not_trusted(path: Path, kind: str) -> None:
    folder = path.with_name("licet.sock.d")
    match kind:
        case "open":
            folder.mkdir()
            folder.chmod(0o755)
        case "link":
            (path.parent / "other").mkdir(0o700)
            folder.symlink_to("other")
        case _:
            folder.write_text("")
    with pytest.raises(UnavailableError, match=r"LICET_SOCKET: .*licet\.sock\.d"):
        SocketFile(path, 0o600).claim()


@pytest.mark.parametrize("name", ["kept.conf", "7", "folder"])
def test_what_others_have_in_a_folder_of_that_name_stays(path: Path, name: str) -> None:
    folder = path.with_name("licet.sock.d")
    folder.mkdir(0o700)
    with listening(folder / "1"):
        pass
    kept = folder / name
    if name == "folder":
        kept.mkdir()
    else:
        kept.write_text("kept")
    with pytest.raises(UnavailableError, match=rf"LICET_SOCKET: .*{name} is there"):
        SocketFile(path, 0o600).claim()
    assert kept.exists()
    assert (folder / "1").exists()
    # Nor does it go with a server that was there before it.
    kept.rename(path.parent / "aside")
    with shown(path):
        (path.parent / "aside").rename(kept)
    assert kept.exists()
    assert not path.exists()


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a folder away")
def test_a_folder_of_another_account_is_not_trusted(path: Path) -> None:
    folder = path.with_name("licet.sock.d")
    folder.mkdir(0o700)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(UnavailableError, match="must be a folder for this account alone"):
        SocketFile(path, 0o600).claim()


def test_a_folder_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"LICET_SOCKET: .*No such file"):
        SocketFile(path.parent / "missing" / "licet.sock", 0o600).claim()


def test_what_somebody_else_has_put_there_meanwhile_is_not_taken_over(path: Path) -> None:
    with shown(path) as file:
        path.unlink()
        with listening(path):
            with pytest.raises(UnavailableError, match="is another server running there"):
                file.show(1)
            assert not file.shows(1)
            file.remove()
            assert path.exists()


def test_what_somebody_has_removed_is_shown_again(path: Path) -> None:
    with shown(path) as file:
        path.unlink()
        file.show(1)
        assert connects(path)


@pytest.mark.parametrize(("mode", "warned"), [(0o777, True), (0o1777, False), (0o750, False)])
def test_it_says_so_when_others_could_put_theirs_there(
    path: Path, caplog: pytest.LogCaptureFixture, mode: int, *, warned: bool
) -> None:
    path.parent.chmod(mode)
    with caplog.at_level(logging.WARNING), claimed(path):
        assert ("may put another server's socket there" in caplog.text) is warned


def test_a_name_of_any_characters_is_one_for_grpc(path: Path) -> None:
    file = SocketFile(path.with_name("a b%41?#é"), 0o600)
    assert file.target(7).endswith("/a%20b%2541%3F%23%C3%A9.d/7")
