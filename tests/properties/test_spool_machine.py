"""The spool against a model: append, follow, discard, lose the machine's power at any moment."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from licet.spool.folder import SpoolFolder
from licet.spool.reader import DamageKind, SpoolReader
from licet.spool.segment import parse_name
from licet.spool.writer import Durability, SpoolWriter
from tests.fakes.spool import PATIENCE, PLENTY, SMALL, WRITER, leaf, recover

PAGE = 4096
bodies = st.builds(
    lambda text, size: (text * size)[:3000],
    st.binary(min_size=1, max_size=40),
    st.integers(0, 100),
)


class SpoolMachine(RuleBasedStateMachine):
    """One writer, one reader that follows it, and what is on disk if the power fails now."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="licet-spool-"))
        folder = SpoolFolder.create(self.root / "spool", WRITER)
        self.writer = SpoolWriter(folder, Durability.GROUP, max_bytes=PLENTY, segment_bytes=SMALL)
        self.reader = SpoolReader(folder, 0, lambda: self.writer.appended)
        self.leaves: list[bytes] = []
        self.read = 0
        self.shipped = 0
        self.durable = 0
        self.on_disk: dict[str, bytes] = {}

    @override
    def teardown(self) -> None:
        self.reader.close()
        self.writer.close()
        self.writer.folder.remove()
        shutil.rmtree(self.root)

    @initialize()
    def begin(self) -> None:
        """Have on disk what is made before the first event."""
        self.sync()

    @rule(body=bodies)
    def append(self, body: bytes) -> None:
        """Append an event."""
        assert self.writer.append(body) == len(self.leaves) + 1
        self.leaves.append(leaf(len(self.leaves) + 1, body))

    @rule(batch=st.lists(bodies, max_size=3))
    def append_all(self, batch: list[bytes]) -> None:
        """Append several."""
        assert self.writer.append_all(batch) == len(self.leaves) + 1
        for body in batch:
            self.leaves.append(leaf(len(self.leaves) + 1, body))

    @rule(limit=st.integers(1, 20))
    def follow(self, limit: int) -> None:
        """Read what follows."""
        run = self.reader.read(limit)
        if run is None:
            assert self.read == len(self.leaves)
            return
        assert run.first == self.read + 1
        assert 0 < len(run.leaves) <= limit
        assert run.leaves == self.leaves[self.read :][: len(run.leaves)]
        self.read += len(run.leaves)

    @rule()
    def discard(self) -> None:
        """Delete what was read."""
        self.shipped = self.read
        self.writer.folder.discard(self.shipped)

    @rule()
    def sync(self) -> None:
        """Wait until all is durable."""
        self.writer.wait(len(self.leaves), PATIENCE)
        assert self.writer.durable >= len(self.leaves)
        self.durable = len(self.leaves)
        self.on_disk = self._files()

    @rule(seed=st.integers(0, 1 << 32), torn=st.booleans())
    def lose_power(self, seed: int, torn: bool) -> None:
        """Recover what is on disk now: of each page not synced, the old one or the new one."""
        crashed = self.root / "crashed"
        folder = crashed / f"{WRITER:012x}"
        folder.mkdir(parents=True)
        for name, new in self._files().items():
            old = self.on_disk.get(name, new[:PAGE] + bytes(len(new) - PAGE))
            pages, lost = bytearray(new), Random(f"{seed} {name[:8]}")
            for page in range(0, len(new), PAGE):
                cut = lost.randrange(PAGE + 1) // 512 * 512 if torn else lost.choice((0, PAGE))
                pages[page : page + cut] = old[page : page + cut]
            (folder / name).write_bytes(pages)
        found, damages = recover(crashed, self.shipped)
        assert set(range(self.shipped + 1, self.durable + 1)) <= set(found)
        assert found == {sequence: self.leaves[sequence - 1] for sequence in found}
        for damage in damages:
            assert damage.first > self.durable
            missing = set(range(damage.first, damage.last + 1))
            assert bool(missing) == (damage.kind is DamageKind.CORRUPT)
            assert not missing & set(found)
        shutil.rmtree(crashed)

    @invariant()
    def nothing_is_damaged(self) -> None:
        """Find everything whole when reading along."""
        assert self.reader.damages() == []
        assert self.reader.position == self.read

    def _files(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in self.writer.folder.path.iterdir()
            if parse_name(path.name) is not None
        }


def test_the_spool_keeps_its_promises() -> None:
    run_state_machine_as_test(
        SpoolMachine, settings=settings(max_examples=40, stateful_step_count=30)
    )
