"""TLS of the gRPC port: the certificates in use, and the table of callers, both always the latest.

TLS 1.2 and 1.3, and HTTP/2 by ALPN, are what gRPC offers; it has no settings for them in Python,
and none for lists of revoked certificates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import time
from typing import Final

import grpc

from licet.server.certificates import Credentials, TlsFiles
from licet.server.followed import Followed
from licet.server.tls_callers import TlsCallers, parse_callers, read_callers

LOOK_SECONDS: Final = 1.0
"""How often the files are looked at."""


class ServerTls:
    """See the module."""

    def __init__(
        self, files: TlsFiles, callers: Path | None = None, clock: Callable[[], float] = time
    ) -> None:
        """Read the files.

        Raises:
            FileRefusedError: they cannot be used.
        """
        self._certificates = Followed(
            "TLS certificate",
            files.read,
            lambda contents: files.parse(contents, clock()),
        )
        self._callers = (
            None
            if callers is None
            else Followed(
                "table of TLS callers",
                partial(read_callers, callers),
                partial(parse_callers, callers),
            )
        )
        self.verifies_clients: Final = files.client_ca is not None
        """Whether a client without a certificate of one of the CAs is refused."""
        # What gRPC was given last; it asks one handshake after the other.
        self._given: Credentials | None = None
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="licet-tls", daemon=True)

    @property
    def expires_at(self) -> float:
        """When the certificate in use expires, in seconds since the Unix epoch."""
        return self._certificates.current.expires_at

    @property
    def reload_failures(self) -> int:
        """How often files were replaced by others that could not be used."""
        return self._certificates.failures + (
            0 if self._callers is None else self._callers.failures
        )

    @property
    def callers(self) -> TlsCallers:
        """The table in use; ask for it with each call."""
        return _NOBODY if self._callers is None else self._callers.current

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a gRPC server takes, which asks here before each handshake."""
        self._given = self._certificates.current
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._given),
            self._latest,  # type: ignore[arg-type] # it may return None, which its stub forgets
            self.verifies_clients,
        )

    def start(self) -> None:
        """Look at the files from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * LOOK_SECONDS)

    def look(self) -> None:
        """Take what is new in the files."""
        self._certificates.look()
        if self._callers is not None:
            self._callers.look()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            self.look()

    def _latest(self) -> grpc.ServerCertificateConfiguration | None:
        latest = self._certificates.current
        if latest is self._given:
            # With the one it has, gRPC also keeps the keys of the sessions that it may resume.
            return None
        self._given = latest
        return _configuration(latest)


def expires_at(tls: ServerTls | None) -> float:
    """Return when the certificate expires; not a number: there is none."""
    return math.nan if tls is None else tls.expires_at


_NOBODY: Final = TlsCallers({})


def _configuration(of: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(of.key, of.chain)], of.client_ca)
