"""Appends events to a spool: on record in about a microsecond, or refused.

Invariants:

- The order in the files is the order of the sequences, which are drawn under one lock. Nothing that
  can wait is done under it: segments are made ahead, synced and closed by other threads.
- An event counts as appended when its frame is whole in mapped memory, which survives any death of
  the process. It counts as durable when a sync that began after that has returned.
- Without space nothing is appended, and when there is space again, appending goes on. After a
  failed sync nothing is ever appended again: the kernel may have dropped what it could not write
  and taken it for clean, so that the next sync would succeed and mean nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from queue import Empty, SimpleQueue
from struct import Struct
from threading import Condition, Lock, Thread
from typing import Final
from zlib import crc32

from licet.app.ports import NotAtOnceError
from licet.app.recording import Acknowledge
from licet.domain.audit_event import ID_LOW, MAX_LEAF_BYTES, leaf_start
from licet.domain.errors import UnavailableError
from licet.spool.folder import SpoolFolder
from licet.spool.group_sync import Appended, GroupSync
from licet.spool.segment import CRC, FRAME_BYTES, HEADER_BYTES, Segment, prepare

_log: Final = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 16 * 1024 * 1024
PAGE_BYTES: Final = 4096
_ROOM_SECONDS: Final = 0.5
"""How long an append waits for the next segment while that is being made."""
CROWDED: Final = 0.8
"""Of what the segments may take; said in the log when they take more."""
_RETRY_SECONDS: Final = 0.25
"""How often it is tried again to make one."""
_STOP_SECONDS: Final = 10.0

_START: Final = Struct(">IQ20sQ")  # length, sequence, the leaf's start, the low half of its id
_START_BYTES: Final = 28  # what the leaf has of that
_pack_start: Final = _START.pack
_pack_crc: Final = CRC.pack
_PADDING: Final = tuple(bytes(count) for count in range(8))


class Durability(StrEnum):
    """What an event survives once it is acknowledged; the values are settings."""

    NONE = "none"
    """Any death of the process."""
    GROUP = "group"
    """That, and the end of the machine."""


class SpoolWriter:
    """The one writer of a folder. For several threads."""

    def __init__(
        self,
        folder: SpoolFolder,
        durability: Durability,
        *,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Begin a folder that was just created.

        Args:
            folder: held by this process.
            durability: what the caller waits for.
            max_bytes: what all segments together may take; room for two at least.
            segment_bytes: what one takes, in whole pages.

        Raises:
            UnavailableError: there is no room, or the disk is broken.
        """
        if segment_bytes % PAGE_BYTES or segment_bytes <= HEADER_BYTES:
            raise ValueError(f"a segment of {segment_bytes} bytes is not some pages")
        self.folder = folder
        self.max_bytes = max_bytes
        """What all segments together may take."""
        self._segment_bytes = segment_bytes
        self._start = leaf_start(folder.writer_id)
        self._ordinal = 0
        # Notified when the next segment is there, or will not be. Never taken under the lock.
        self._room = Condition()
        self._following: Segment | None = None
        self._shortage: str | None = None
        self._is_crowded = False
        self._segment = self._first()
        # Guards what follows, for as long as it takes to store a frame.
        self._lock = Lock()
        self._sequence = 0
        self._memory = self._segment.memory
        self._seed = self._segment.seed
        self._offset = HEADER_BYTES
        self._limit = self._segment.size  # 0 when appends are refused
        self._full: list[Segment] = []
        self._refusal: str | None = None
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closing = False
        self._runner = Thread(target=self._run, name="licet-spool-segments", daemon=True)
        self._sync = GroupSync(self._take, self._refuse) if durability is Durability.GROUP else None
        self._wake.put(None)
        self._runner.start()
        if self._sync is not None:
            self._sync.start()

    def append(self, body: bytes, *, waits: bool = True) -> int:
        """Append an event, and return its sequence.

        Args:
            body: see `audit_event.leaf_body`.
            waits: for the next segment, if that is still being made.

        Raises:
            UnavailableError: it is not on record, and never will be.
            NotAtOnceError: nor is it, but it may be for somebody who waits.
        """
        length = _START_BYTES + len(body)
        if length > MAX_LEAF_BYTES:
            raise ValueError(f"a leaf of {length} bytes is too long")
        while True:
            with self._lock:
                sequence = self._sequence + 1
                begin = self._offset
                end = begin + FRAME_BYTES + length
                if end <= self._limit:
                    record = _pack_start(length, sequence, self._start, ID_LOW | sequence) + body
                    self._memory[begin:end] = _pack_crc(crc32(record, self._seed ^ begin)) + record
                    self._offset = (end + 7) & ~7
                    self._sequence = sequence
                    return sequence
            self._make_room(FRAME_BYTES + length, waits=waits)

    def append_all(self, bodies: Sequence[bytes], *, waits: bool = True) -> int:
        """Append events, all or none, and return the first one's sequence; the others follow it.

        Raises as `append` does.
        """
        start = self._start
        while True:
            with self._lock:
                first = sequence = self._sequence + 1
                seed, end = self._seed, self._offset
                frames: list[bytes] = []
                for body in bodies:
                    length = _START_BYTES + len(body)
                    if length > MAX_LEAF_BYTES:
                        raise ValueError(f"a leaf of {length} bytes is too long")
                    record = _pack_start(length, sequence, start, ID_LOW | sequence) + body
                    crc = _pack_crc(crc32(record, seed ^ end))
                    frames.append(crc + record + _PADDING[-length & 7])
                    end += (FRAME_BYTES + length + 7) & ~7
                    sequence += 1
                at = self._offset
                size = end - at
                if end <= self._limit:
                    # One after the other: a copy need not go from front to back, and when the
                    # process is killed in it, no whole frame may stand behind half a one.
                    for frame in frames:
                        self._memory[at : at + len(frame)] = frame
                        at += len(frame)
                    self._offset = end
                    self._sequence = sequence - 1
                    return first
            self._make_room(size, waits=waits)

    @property
    def appended(self) -> int:
        """The sequence of the last event appended."""
        return self._sequence

    @property
    def durable(self) -> int:
        """Up to which sequence everything is on disk; 0 when nobody waits for that."""
        return 0 if self._sync is None else self._sync.durable

    @property
    def is_synced(self) -> bool:
        """Whether the caller waits for the disk."""
        return self._sync is not None

    @property
    def taken(self) -> int:
        """What the files of the spool take, in bytes; 0 where that cannot be read."""
        try:
            return self.folder.bytes()
        except OSError:
            return 0

    @property
    def shortage(self) -> str | None:
        """Why there is no next segment, while there is none; it passes when space returns."""
        return self._shortage

    @property
    def refusal(self) -> str | None:
        """Why no event will ever be taken again, once that is so.

        After a failed sync: the writer is to be replaced by one with a folder of its own, and this
        folder adopted.
        """
        return self._refusal

    def wait(self, sequence: int, seconds: float) -> None:
        """Return when an event that was appended is as durable as was promised.

        Raises:
            UnavailableError: it may be on record or not; the decision must not leave.
        """
        if self._sync is not None:
            self._sync.wait(sequence, seconds)

    @property
    def is_crowded(self) -> bool:
        """Whether so many wait for the disk that one more is to hold a thread."""
        return self._sync is not None and self._sync.is_crowded

    def when(self, sequence: int, acknowledge: Acknowledge, *, waits: bool = True) -> None:
        """Have `acknowledge` told what `wait` would return or raise, without waiting for it.

        Once, and in the end, whatever the disk does. With `waits`, see `is_crowded`.
        """
        if self._sync is None:
            acknowledge(None)
        else:
            self._sync.when(sequence, acknowledge, waits=waits)

    def close(self) -> None:
        """Refuse further events, and bring all to the disk. The folder stays held."""
        if self._closing:
            return
        self._refuse("the server is stopping")
        self._closing = True
        self._wake.put(None)
        self._runner.join(_STOP_SECONDS)
        ended = self._sync is None or self._sync.stop(_STOP_SECONDS)
        if not ended or self._runner.is_alive():
            _log.error("the disk does not answer; the spool is left to those who adopt it")
            return
        if self._sync is None:
            self._sync_last()
        for segment in (*self._full, self._segment):
            segment.close()
        if self._following is not None:
            self._following.close()
            with suppress(OSError):
                self.folder.system.unlink(str(self._following.name), self.folder.descriptor)

    def _sync_last(self) -> None:
        try:
            for segment in (*self._full, self._segment):
                segment.sync()
        except OSError as exc:
            _log.warning("the spool's end may not be on disk: %s", exc.strerror)
            return
        self._segment.note_durable(self._sequence)

    def _first(self) -> Segment:
        self._make_next()
        first, self._following = self._following, None
        if first is None:
            raise UnavailableError(f"there is no spool: {self._shortage}")
        first.begin(1)
        return first

    def _make_room(self, size: int, *, waits: bool) -> None:
        """Go on in the next segment, unless another thread did. Raises as `append` does."""
        if size > self._segment_bytes - HEADER_BYTES:
            raise ValueError(f"{size} bytes do not fit in a segment")
        with self._lock:
            if self._refusal is not None:
                raise UnavailableError(f"the decision cannot be recorded: {self._refusal}")
            if self._offset + size <= self._limit:
                return
            if self._following is not None:
                self._roll(self._following)
                return
        if not waits:
            raise NotAtOnceError
        with self._room:
            if not self._room.wait_for(lambda: self._is_settled(size), _ROOM_SECONDS):
                raise UnavailableError("the decision cannot be recorded: the disk is too slow")
            if self._shortage is not None:
                raise UnavailableError(f"the decision cannot be recorded: {self._shortage}")

    def _is_settled(self, size: int) -> bool:
        if self._following is not None or self._shortage is not None:
            return True
        return self._offset + size <= self._limit  # another thread went on first

    def _roll(self, following: Segment) -> None:
        """Use the next segment; in memory only, and under the lock."""
        self._full.append(self._segment)
        self._following = None
        following.begin(self._sequence + 1)
        self._segment = following
        self._memory = following.memory
        self._seed = following.seed
        self._offset = HEADER_BYTES
        self._limit = following.size
        self._wake.put(None)

    def _refuse(self, reason: str) -> None:
        with self._lock:
            self._refusal = self._refusal or reason
            self._limit = 0

    def _take(self) -> Appended:
        """See `group_sync.Appended`."""
        with self._lock:
            full, self._full = self._full, []
            return Appended(self._sequence, full, self._segment)

    def _run(self) -> None:
        while not self._closing:
            with suppress(Empty):
                self._wake.get(timeout=_RETRY_SECONDS)
            if self._sync is None:
                for segment in self._take().full:
                    segment.close()
            if self._following is None and self._refusal is None:
                self._make_next()

    def _watch_room(self, taken: int) -> None:
        """Say once when the spool comes to be crowded, and once when it is not any more."""
        crowded = taken + self._segment_bytes > CROWDED * self.max_bytes
        if crowded == self._is_crowded:
            return
        self._is_crowded = crowded
        (_log.warning if crowded else _log.info)(
            "the spool %s %s its %d bytes",
            *(self.folder.path, "comes near to" if crowded else "is well below", self.max_bytes),
        )

    def _make_next(self) -> None:
        """Make the next segment, or say why there is none."""
        made, shortage = None, None
        try:
            taken = self.folder.bytes()
            self._watch_room(taken)
            if taken + self._segment_bytes > self.max_bytes:
                shortage = f"the spool has reached its {self.max_bytes} bytes"
            else:
                # A failed attempt may have left something under its ordinal.
                self._ordinal += 1
                made = prepare(
                    self.folder.descriptor,
                    self.folder.writer_id,
                    self._ordinal,
                    self._segment_bytes,
                    self.folder.system,
                )
        except OSError as exc:
            shortage = f"the spool cannot grow: {exc.strerror}"
        except Exception:  # noqa: BLE001 - a bug must not end the thread; it is tried again
            _log.exception("making a segment of the spool failed")
            shortage = "the spool cannot grow"
        if shortage is not None and shortage != self._shortage:
            _log.error("%s; decisions will be refused when the segment in use is full", shortage)
        with self._room:
            self._following, self._shortage = made, shortage
            self._room.notify_all()
