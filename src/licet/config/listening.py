"""The settings of where a server listens, who may call there, and with how many workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from licet.config import rules

MAX_WORKERS: Final = 64
NO_PORT: Final = "none"
"""What `listen` is where a server has nothing but its Unix socket."""


def _usual_workers(others: dict[str, Any]) -> int:
    """Return how many workers there are if nobody says: one for each core that they may have."""
    named = others.get("worker_cores")
    cores = rules.cores(named) if named else os.sched_getaffinity(0)
    return min(len(cores), MAX_WORKERS)


class Listening(BaseModel):
    """See the module; a part of `Settings`."""

    listen: str = Field(
        default="127.0.0.1:50051",
        description="Address to serve on; port 0 takes a free one. `none`: only on `socket`.",
    )
    insecure_bind: bool = Field(
        default=False,
        description="Serve without TLS on an address that is not loopback.",
    )
    socket: Path | None = Field(
        default=None,
        description="Unix socket to serve on as well, in plain text. Unset: none.",
    )
    socket_mode: Literal["0600", "0660", "0666"] = Field(
        default="0600", description="Who may open the socket: this account, its group, everybody."
    )
    authentication: Literal["auto", "required"] = Field(
        default="auto",
        description="Whether callers need a credential. `auto`: unless `listen` is loopback, and "
        "there is neither a CA of the clients nor a `socket`.",
    )
    tls_cert_file: Path | None = Field(
        default=None, description="The server's certificate and its chain, PEM. Unset: no TLS."
    )
    tls_key_file: Path | None = Field(
        default=None, description="The certificate's private key, PEM, for this account alone."
    )
    tls_client_ca_file: Path | None = Field(
        default=None,
        description="CAs of the clients, PEM: each needs a certificate. Unset: none is asked for.",
    )
    tls_callers_file: Path | None = Field(
        default=None,
        description="Which clients with a certificate are which callers, TOML. Unset: none is.",
    )
    worker_cores: str | None = Field(
        default=None,
        description="Cores to keep the workers on, one each in this order, like `2,3` or `0-3`."
        " Unset: see `pin_workers`.",
    )
    # Behind `worker_cores`, on which its default depends.
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = Field(
        default_factory=_usual_workers,
        description="Processes that serve, all on one port. Unset: as many as there are cores.",
    )
    pin_workers: bool = Field(
        default=True, description="Keep each worker on a core of its own when there is one a core."
    )
    connection_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        default=30.0,
        description="How long a client's connection is kept by one of several workers.",
    )

    @field_validator(
        *("tls_cert_file", "tls_key_file", "tls_client_ca_file", "tls_callers_file"),
        *("socket", "worker_cores"),
        mode="before",
    )
    @classmethod
    def _empty_is_unset_too(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value != NO_PORT:
            rules.check_address(value)
        return value

    @field_validator("socket")
    @classmethod
    def _is_short(cls, value: Path | None) -> Path | None:
        return None if value is None else rules.socket_path(value)

    @field_validator("worker_cores")
    @classmethod
    def _names_cores(cls, value: str | None) -> str | None:
        if value is not None:
            rules.cores(value)
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        self._check_port()
        self._check_tls()
        self._check_cores()
        return self

    def _check_port(self) -> None:
        if self.listen == NO_PORT:
            if self.socket is None:
                message = f"LICET_LISTEN={NO_PORT} needs LICET_SOCKET"
                raise ValueError(message)
            if self.tls_cert_file is not None:
                message = (
                    f"LICET_TLS_CERT_FILE is for the port, and LICET_LISTEN={NO_PORT}:"
                    " the socket is served in plain text"
                )
                raise ValueError(message)
        elif not self.insecure_bind:
            rules.check_bind(self.listen, has_tls=self.tls_cert_file is not None)

    def _check_tls(self) -> None:
        for name, needed in (
            ("tls_cert_file", "tls_key_file"),
            ("tls_key_file", "tls_cert_file"),
            ("tls_client_ca_file", "tls_cert_file"),
            ("tls_callers_file", "tls_client_ca_file"),
        ):
            if getattr(self, name) is not None and getattr(self, needed) is None:
                message = f"LICET_{name.upper()} needs LICET_{needed.upper()}"
                raise ValueError(message)

    def _check_cores(self) -> None:
        if not self.cores:
            return
        if not self.pin_workers:
            message = "LICET_WORKER_CORES keeps workers on cores, LICET_PIN_WORKERS=false does not"
            raise ValueError(message)
        if len(self.cores) < self.workers:
            message = (
                f"LICET_WORKER_CORES={self.worker_cores} must name a core for each of"
                f" {self.workers} workers (LICET_WORKERS)"
            )
            raise ValueError(message)

    @property
    def address(self) -> str | None:
        """The address to serve on; None: there is none but the socket."""
        return None if self.listen == NO_PORT else self.listen

    @property
    def socket_bits(self) -> int:
        """The mode of the socket's file, as a number."""
        return int(self.socket_mode, 8)

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores that were named for the workers, in their order; empty: none were."""
        return () if self.worker_cores is None else rules.cores(self.worker_cores)

    @property
    def admits_anonymous(self) -> bool:
        """Whether a caller without a credential is let in, as admin."""
        return (
            self.authentication == "auto"
            and rules.is_loopback(self.listen)
            # With clients' certificates, one that is taken out of the table would become admin.
            and self.tls_client_ca_file is None
            # Whoever sets one hands it to other accounts or containers, whose root may open it
            # whatever its mode.
            and self.socket is None
        )
