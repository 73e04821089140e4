"""What every command that calls a licet has in common: where it calls, and how it prints."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from licet.cli.errors import CommandError

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Client, LicetCallError

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
DEFAULT_TIMEOUT_SECONDS: Final = 5.0
ADDRESS_VARIABLE: Final = "LICET_ADDRESS"
API_KEY_VARIABLE: Final = "LICET_API_KEY"
_PANEL: Final = "Where and how"

AddressOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help=f"Call the licet there, not at {DEFAULT_ADDRESS}. [LICET_ADDRESS]",
        rich_help_panel=_PANEL,
    ),
]
ApiKeyFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="Call with the API key in this file; never on the command line, which every user of "
        "this machine can see. [LICET_API_KEY: the key itself]",
        rich_help_panel=_PANEL,
    ),
]
JsonOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON: one object, or for lists one object a line.",
        rich_help_panel=_PANEL,
    ),
]
TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.001,
        max=86_400,
        help=f"Wait so long for each answer; {DEFAULT_TIMEOUT_SECONDS:g} unless told otherwise.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of one command.

    Attributes:
        address: host and port of the licet to call.
        as_json: print JSON, for programs.
        timeout: seconds to wait for each answer.
        api_key: to call with; None: without.
    """

    address: str
    as_json: bool = False
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def of_environment(cls) -> Invocation:
        """Return what the environment asks for. Raises CommandError."""
        return cls(
            _checked(os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS, ADDRESS_VARIABLE),
            api_key=os.environ.get(API_KEY_VARIABLE) or None,
        )

    def changed(
        self,
        address: str | None,
        timeout: float | None,
        api_key_file: Path | None = None,
        *,
        as_json: bool,
    ) -> Invocation:
        """Return an invocation with what is given here, and the rest as it is.

        Raises:
            CommandError: the address has no port, or the file no key.
        """
        return Invocation(
            address=self.address if address is None else _checked(address, "--address"),
            as_json=self.as_json or as_json,
            timeout=self.timeout if timeout is None else timeout,
            api_key=self.api_key if api_key_file is None else _read_key(api_key_file),
        )

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Provide a client, and say what fails in one line.

        Raises:
            CommandError: a call was not answered.
        """
        # gRPC has a log of its own on standard error, where our one line is to stand alone.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        # As other programs do, end without a word when the reader of a pipe has gone.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        from licet.client import Client, LicetCallError  # noqa: PLC0415 - see the package

        try:
            with Client(self.address, timeout=self.timeout, api_key=self.api_key) as client:
                yield client
        except LicetCallError as exc:
            raise CommandError(self.explain(exc)) from exc

    def explain(self, error: LicetCallError) -> str:
        """Say in one line why a call was not answered."""
        if not error.reason:
            # No licet said this.
            match error.code:
                case "UNAVAILABLE":
                    return f"no licet answers at {self.address}: {error.message}"
                case "DEADLINE_EXCEEDED":
                    return f"{self.address} did not answer within {self.timeout:g} s"
                case _:
                    return f"{self.address}: {error.message} ({error.code})"
        if error.reason in {error.code, "INVALID_REQUEST"}:
            return f"{error.message} ({error.code})"
        return f"{error.message} ({error.code}, {error.reason})"


def _checked(address: str, source: str) -> str:
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or (host and port.isdecimal()):
        return address
    # gRPC would take a missing port for that of HTTPS.
    raise CommandError(f"{source} must be host:port, like {DEFAULT_ADDRESS}, not {address!r}")


def _read_key(file: Path) -> str:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        cause = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise CommandError(f"--api-key-file {file}: {cause}") from None
    if not text:
        raise CommandError(f"--api-key-file {file}: it is empty")
    return text


def invocation_of(context: typer.Context) -> Invocation:
    """Return what the options before the command ask for."""
    found = context.find_object(Invocation)
    return Invocation.of_environment() if found is None else found


def command(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command its invocation, and the options for it.

    The function's first parameter is the invocation. The options work before and after the name of
    the command.
    """
    own = inspect.signature(function, eval_str=True)

    @wraps(function)
    def run(
        typer_context: typer.Context,
        address: str | None,
        timeout: float | None,
        api_key_file: Path | None,
        json: bool,
        **arguments: Any,  # noqa: ANN401 - the function's own
    ) -> int:
        invocation = invocation_of(typer_context).changed(
            address, timeout, api_key_file, as_json=json
        )
        return function(invocation, **arguments)

    parameters = [
        _keyword("typer_context", typer.Context),
        *list(own.parameters.values())[1:],
        _keyword("address", AddressOption, None),
        _keyword("api_key_file", ApiKeyFileOption, None),
        _keyword("json", JsonOption, default=False),
        _keyword("timeout", TimeoutOption, None),
    ]
    # typer reads both.
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = own.replace(parameters=keywords)  # type: ignore[attr-defined] # of inspect
    run.__annotations__ = {p.name: p.annotation for p in keywords}
    return run


def _keyword(
    name: str, annotation: object, default: object = inspect.Parameter.empty
) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
