"""Lanes: the threads of a kind of calls, and how many of those may be under way at once.

What waits for a thread is under way, and so is an answer that waits for the disk without one. A
call that comes when the lane is full is refused at once: it would only wait until its caller is
gone, and nobody could tell that from a slow database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock, local
from typing import Final, ParamSpec, Protocol, TypeVar

import grpc
from typing_extensions import override

from licet.domain.errors import ExhaustedError
from licet.server.status import status_of

TOO_MANY: Final = "this replica has too many calls under way"

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Tally:
    """Counts what is rare enough to take a lock."""

    __slots__ = ("_count", "_mutex")

    def __init__(self) -> None:
        """Start at 0."""
        # Guards the count.
        self._mutex = Lock()
        self._count = 0

    def add(self) -> None:
        """Count one."""
        with self._mutex:
            self._count += 1

    def __int__(self) -> int:
        """Return how many were counted."""
        return self._count


class Ending(Protocol):
    """What is needed of grpc.ServicerContext."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have something called when the call ends; False: it has ended."""
        ...


class Lane(ThreadPoolExecutor):
    """See the module. gRPC submits each call to it, whether it is full or not: ask before."""

    def __init__(self, threads: int, name: str, limit: int, *, holds: bool = False) -> None:
        """Have so many threads, and `limit` calls under way at most.

        `holds`: whether answers may wait for the disk without a thread, see `hold`.
        """
        self.holds: Final = holds
        super().__init__(threads, thread_name_prefix=f"licet-{name}")
        self._limit = limit
        # One for each call. Its ends are changed without a lock, by any thread (see `deque`).
        self._calls: deque[None] = deque()
        # `counts`: whether the call that the thread runs is counted until it leaves it. Not a class
        # derived from `local`: compiled, its attributes would be the same for all threads.
        self._own = local()
        self.shed = Tally()
        """How many were refused because it was full; read by metrics."""

    @property
    def under_way(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    @property
    def is_full(self) -> bool:
        """Whether there is no place for another call."""
        return len(self._calls) >= self._limit

    @override
    def submit(
        self,
        fn: Callable[_Parameters, _Result],
        /,
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> Future[_Result]:
        """See `Executor.submit`."""
        self._calls.append(None)
        return super().submit(self._counted, fn, *args, **kwargs)  # type: ignore[arg-type] # the same parameters

    def check(self) -> None:
        """Check that there is a place for a call that this lane was not given.

        Raises:
            ExhaustedError: there is none.
        """
        if self.is_full:
            self.shed.add()
            raise ExhaustedError(TOO_MANY)

    def offer(
        self, fn: Callable[..., object], refuse: Callable[[grpc.Status], None], *args: object
    ) -> None:
        """Run a call if there is a place for it, else have it refused at once."""
        try:
            self.check()
        except ExhaustedError as exc:
            refuse(status_of(exc))
        else:
            Lane.submit(self, fn, *args)

    def enter(self) -> None:
        """Count a call that waits without a thread, until `leave`."""
        self._calls.append(None)

    def leave(self) -> None:
        """Count it no more."""
        self._calls.pop()

    def hold(self, call: Ending) -> None:
        """Count the call that this thread runs until it ends, which may be after that."""
        if getattr(self._own, "counts", False):
            self._own.counts = False
        else:
            self.enter()  # the thread is of another lane, or of none
        if not call.add_callback(self.leave):
            self.leave()

    def _counted(
        self,
        fn: Callable[_Parameters, _Result],
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> _Result:
        self._own.counts = True
        try:
            return fn(*args, **kwargs)
        finally:
            if self._own.counts:
                self.leave()
                self._own.counts = False


class Shares:
    """So many of something that lasts for each caller, so that nobody has all of it."""

    def __init__(self, limit: int) -> None:
        """Let each have `limit` at once."""
        self._limit = limit
        # Guards the counts; a caller without any is not in them.
        self._mutex = Lock()
        self._counts: dict[str, int] = {}
        self.refused = Tally()
        """How often somebody wanted one more; read by metrics."""

    def __len__(self) -> int:
        """Return how many callers have one."""
        return len(self._counts)

    @contextmanager
    def of(self, caller: str) -> Iterator[None]:
        """Have one more as long as this lasts.

        Raises:
            ExhaustedError: the caller has as many as it may.
        """
        self.take(caller)
        try:
            yield
        finally:
            self.give(caller)

    def take(self, caller: str) -> None:
        """Have one more, until it is given back. Raises as `of`."""
        with self._mutex:
            count = self._counts.get(caller, 0)
            refused = count >= self._limit
            if not refused:
                self._counts[caller] = count + 1
        if refused:
            self.refused.add()
            raise ExhaustedError(f"a caller may have {self._limit} streams open on this replica")

    def give(self, caller: str) -> None:
        """Give one back."""
        with self._mutex:
            left = self._counts[caller] - 1
            if left:
                self._counts[caller] = left
            else:
                del self._counts[caller]
