"""The API key, or token, that goes with every call of a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

import grpc

from licet.client.errors import invalid

_AUTHORIZATION: Final = "authorization"


class _Details(NamedTuple):
    """See grpc.ClientCallDetails, which has no constructor of its own."""

    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the credential. grpc's own call credentials refuse a connection without TLS."""

    def __init__(self, api_key: Callable[[], str]) -> None:
        self._api_key = api_key

    def _call(
        self,
        continuation: Callable[..., Any],
        details: grpc.ClientCallDetails,
        request: object,
    ) -> Any:  # noqa: ANN401 - a call of any kind
        entry = (_AUTHORIZATION, f"Bearer {self._api_key()}")
        metadata = (*(details.metadata or ()), entry)
        with_key = _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(cast("grpc.ClientCallDetails", with_key), request)

    intercept_unary_unary = _call  # type: ignore[assignment] # one for every kind
    intercept_unary_stream = _call  # type: ignore[assignment] # as above
    intercept_stream_stream = _call  # type: ignore[assignment] # as above


def bearing(channel: grpc.Channel, api_key: str | Callable[[], str] | None) -> grpc.Channel:
    """Return the channel with an API key, if there is one, in each of its calls.

    Where that changes, it is asked for before each call.

    Raises:
        LicetCallError: the key cannot be sent; it is not shown.
    """
    if api_key is None:
        return channel
    if not isinstance(api_key, str):
        return grpc.intercept_channel(channel, _Bearer(lambda: check_sendable(api_key())))
    checked = check_sendable(api_key)
    return grpc.intercept_channel(channel, _Bearer(lambda: checked))


def check_sendable(api_key: str) -> str:
    """Return an API key that can be sent.

    Raises:
        LicetCallError: it cannot be; it is not shown.
    """
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key or not api_key:
        raise invalid("api_key", "must be the text of an API key: printable ASCII without spaces")
    return api_key
