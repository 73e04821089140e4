"""Many calls at once; how one ends is seen in the thread that asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from licet.domain.errors import Violation

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import LicetCallError

THREADS: Final = 16
_AHEAD: Final = 4
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 1.0
# What a server says of the request, and not of itself or of who calls.
_REFUSALS: Final = frozenset(
    {"INVALID_ARGUMENT", "PERMISSION_DENIED", "FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS"}
)
_NOT_OF_THE_RECORD: Final = frozenset({"", "SCOPE_MISSING", "HISTORY_UNCONFIRMED", "CALLER_BARRED"})
_FIELDS: Final = {
    "ACTIONS_WIDER": "actions",
    "DEPTH_WIDER": "delegation_depth",
    "EXPIRY_WIDER": "expires_at",
    "NOT_BEFORE_WIDER": "not_before",
    "RESOURCE_WIDER": "resource",
    "NO_DEPTH_LEFT": "parent",
    "PARENT_ENDED": "parent",
    "PARENT_EXPIRED": "parent",
    "SCOPES_WIDER": "scopes",
}


class _Failure(NamedTuple):
    """Why no further call is to be made."""

    error: LicetCallError


_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_Job = tuple[_Key, Callable[[], _Answer]]


def each(
    jobs: Iterable[_Job[_Key, _Answer]], threads: int = THREADS
) -> Iterator[tuple[_Key, _Answer | LicetCallError]]:
    """Make calls, some at once, and yield how each ended, as they end; jobs are taken lazily.

    Raises:
        LicetCallError: a call failed for a reason that is not its own. No further one was begun,
            and how those ended that had been is yielded first.
    """
    remaining = iter(jobs)
    keys: dict[Future[_Answer], _Key] = {}
    failure: LicetCallError | None = None
    executor = ThreadPoolExecutor(threads, thread_name_prefix="licet-import")
    try:
        while True:
            if failure is None:
                for key, call in islice(remaining, threads * _AHEAD - len(keys)):
                    keys[executor.submit(_patiently, call)] = key
            if not keys:
                break
            done, _ = wait(keys, return_when=FIRST_COMPLETED)
            for future in done:
                key = keys.pop(future)
                if future.cancelled():
                    continue
                outcome = _outcome(future)
                if isinstance(outcome, _Failure):
                    failure = failure or outcome.error
                    _cancel(keys)
                else:
                    yield key, outcome
    finally:
        executor.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure


def _outcome(future: Future[_Answer]) -> _Answer | LicetCallError | _Failure:
    from licet.client import LicetCallError  # noqa: PLC0415 - see the package

    try:
        return future.result()
    except LicetCallError as exc:
        return exc if is_refusal(exc) else _Failure(exc)


def _cancel(futures: Iterable[Future[_Answer]]) -> None:
    for future in futures:
        future.cancel()


def _patiently(call: Callable[[], _Answer]) -> _Answer:
    """Make a call again while the server is too busy for it."""
    from licet.client import LicetCallError  # noqa: PLC0415 - see the package

    waited, pause = 0.0, Event()  # never set: a bounded wait
    while True:
        try:
            return call()
        except LicetCallError as exc:
            if exc.code != "RESOURCE_EXHAUSTED" or waited >= _PATIENCE_SECONDS:
                raise
            delay = exc.retry_after
            seconds = _PAUSE_SECONDS if delay is None else max(delay.total_seconds(), 0.01)
            waited += seconds
            pause.wait(seconds)


def is_refusal(error: LicetCallError) -> bool:
    """Say whether a call failed because of what it asked for, and others may succeed."""
    return error.code in _REFUSALS and error.reason not in _NOT_OF_THE_RECORD


def violations_of(error: LicetCallError) -> tuple[Violation, ...]:
    """Return why a record was refused, by the names of its fields."""
    if error.violations:
        return error.violations
    return (refusal(error.reason, error.message),)


def refusal(code: str, message: str) -> Violation:
    """Return a rule of licet that a record breaks, from its code."""
    return Violation(_FIELDS.get(code, ""), f"{message} ({code})")
