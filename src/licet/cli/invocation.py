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
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias

import typer

from licet.cli.errors import CommandError

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import Client, LicetCallError, Tls

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
TlsCaOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Call by TLS, and trust servers with a certificate of these CAs (PEM). "
        "[LICET_CALL_CA_FILE]",
        rich_help_panel=_PANEL,
    ),
]
TlsCertOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tls-cert",
        metavar="FILE",
        help="Show this certificate to a server that asks for one (PEM). [LICET_CALL_CERT_FILE]",
        rich_help_panel=_PANEL,
    ),
]
TlsKeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tls-key",
        metavar="FILE",
        help="The private key of that certificate (PEM). [LICET_CALL_KEY_FILE]",
        rich_help_panel=_PANEL,
    ),
]
TlsNameOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tls-name",
        metavar="NAME",
        help="Expect this name in the server's certificate, not that of the address. "
        "[LICET_CALL_SERVER_NAME]",
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


class TlsOptions(NamedTuple):
    """What is asked for of TLS; as `licet.client.Tls` has it, but any may be missing."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None

    @classmethod
    def of_environment(cls) -> TlsOptions:
        """Return what the environment asks for; an empty variable is as one that is not set."""
        return cls(*(os.environ.get(f"LICET_CALL_{name.upper()}") or None for name in cls._fields))

    def changed(self, given: TlsOptions) -> TlsOptions:
        """Return what is given, and the rest as it is."""
        return TlsOptions(
            *(old if new is None else new for new, old in zip(given, self, strict=True))
        )

    def checked(self) -> Tls | None:
        """Return what a client takes; None: plain text.

        Raises:
            CommandError: something is missing.
        """
        from licet.client import Tls  # noqa: PLC0415 - see the package

        if self.ca_file is None:
            if any(self):
                # Not in plain text, when somebody thought of TLS.
                raise CommandError("TLS needs --tls-ca (or LICET_CALL_CA_FILE): whom to trust")
            return None
        if (self.cert_file is None) != (self.key_file is None):
            raise CommandError("--tls-cert and --tls-key go together")
        return Tls(self.ca_file, self.cert_file, self.key_file, self.server_name)


_NO_TLS: Final = TlsOptions()


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of one command.

    Attributes:
        address: host and port of the licet to call.
        as_json: print JSON, for programs.
        timeout: seconds to wait for each answer.
        tls: whom to trust, and who this is; nothing: plain text.
        api_key: to call with; None: without.
    """

    address: str
    as_json: bool = False
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    tls: TlsOptions = _NO_TLS
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def of_environment(cls) -> Invocation:
        """Return what the environment asks for. Raises CommandError."""
        return cls(
            _checked(os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS, ADDRESS_VARIABLE),
            tls=TlsOptions.of_environment(),
            api_key=os.environ.get(API_KEY_VARIABLE) or None,
        )

    def changed(
        self,
        address: str | None,
        timeout: float | None,
        tls: TlsOptions,
        api_key_file: Path | None,
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
            tls=self.tls.changed(tls),
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
        from licet.client import LicetCallError  # noqa: PLC0415 - see the package

        try:
            with self._client() as client:
                yield client
        except LicetCallError as exc:
            raise CommandError(self.explain(exc)) from exc

    def _client(self) -> Client:
        from licet.client import Client  # noqa: PLC0415 - see the package

        tls = self.tls.checked()
        try:
            return Client(self.address, timeout=self.timeout, tls=tls, api_key=self.api_key)
        except OSError as exc:
            raise CommandError(f"cannot read {exc.filename}: {exc.strerror}") from exc

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
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_name: str | None,
        **arguments: Any,  # noqa: ANN401 - the function's own
    ) -> int:
        tls = TlsOptions(tls_ca, tls_cert, tls_key, tls_name)
        invocation = invocation_of(typer_context).changed(
            address, timeout, tls, api_key_file, as_json=json
        )
        return function(invocation, **arguments)

    parameters = [
        _keyword("typer_context", typer.Context),
        *list(own.parameters.values())[1:],
        _keyword("address", AddressOption, None),
        _keyword("api_key_file", ApiKeyFileOption, None),
        _keyword("json", JsonOption, default=False),
        _keyword("timeout", TimeoutOption, None),
        _keyword("tls_ca", TlsCaOption, None),
        _keyword("tls_cert", TlsCertOption, None),
        _keyword("tls_key", TlsKeyOption, None),
        _keyword("tls_name", TlsNameOption, None),
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
