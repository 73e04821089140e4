"""Changes that hold a place, and no thread while they are committed and confirmed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from licet.app.ports import AT_ONCE, Deadline, Ended, NotAtOnceError
from licet.domain.caller import Identity
from licet.domain.errors import LicetError
from licet.server.identity import deadline_of, identity_of, patience_of
from licet.server.places import Places
from licet.server.replies import Answering, Reply
from licet.server.status import internal, status_of

_log: Final = logging.getLogger(__name__)

MAX_BYTES: Final = 1024
"""The largest change that the serving thread looks at. What a capability carries is brought into
its canonical form, which costs more than to read it."""

_Request = TypeVar("_Request", bound=Message)
_Command = TypeVar("_Command")
_Result = TypeVar("_Result")
_Command_contra = TypeVar("_Command_contra", contravariant=True)

_Tell: TypeAlias = "Callable[[Ended[_Result]], None]"


class Begin(Protocol[_Command_contra, _Result]):
    """Begins a change: `GrantCapability.begin`, `RevokeCapabilities.begin`."""

    def __call__(
        self,
        command: _Command_contra,
        caller: Identity,
        deadline: Deadline,
        patience: Deadline,
        tell: _Tell[_Result],
        /,
    ) -> None:
        """Begin a change, and return without waiting for it."""
        ...


class Changes:
    """See the module."""

    def __init__(
        self,
        places: Places,
        threads: Executor,
        complete: Callable[[grpc.ServicerContext], object],
    ) -> None:
        """Count changes with `places`, and finish on `threads` what has to wait after all.

        `complete` adds to the metadata of an answer.
        """
        self._places = places
        self._threads = threads
        self._complete = complete

    def answering(
        self,
        convert: Callable[[_Request], _Command],
        begin: Begin[_Command, _Result],
        render: Callable[[_Result], Message],
    ) -> Answering:
        """Return what answers the calls of a method."""

        def answer(request: Any, context: grpc.ServicerContext, reply: Reply) -> None:  # noqa: ANN401 - a _Request
            deadline = deadline_of(context)
            if deadline is AT_ONCE and request.ByteSize() > MAX_BYTES:
                raise NotAtOnceError

            def finish(ended: Ended[_Result]) -> None:
                try:
                    message = render(ended.result()).SerializeToString()
                    self._complete(context)
                except LicetError as exc:
                    reply.end(status_of(exc))
                except Exception:  # noqa: BLE001 - others are told by the same thread
                    _log.exception("answering a change failed on a bug")
                    reply.end(internal())
                else:
                    reply.send(message)
                finally:
                    self._places.give()

            def tell(ended: Ended[_Result]) -> None:
                if ended.waits:
                    self._threads.submit(finish, ended)
                else:
                    finish(ended)

            self._places.take()
            try:
                begin(convert(request), identity_of(context), deadline, patience_of(context), tell)
            except BaseException:
                self._places.give()
                raise

        return answer
