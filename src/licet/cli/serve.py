"""`licet serve`: the options; `serving.py` does the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

_PolicyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Put the policies of this file, now and whenever it changes: in development only. "
        "[LICET_POLICY_FILE]",
    ),
]
_DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where the embedded PostgreSQL keeps its data. [LICET_DATA_DIR]"
    ),
]
_Socket: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Unix socket to serve on as well; with --listen none, on that only. Callers need a "
        "credential then. [LICET_SOCKET]",
    ),
]


def serve(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address to serve on, 127.0.0.1:50051 unless told otherwise; port 0 takes a free "
            "one. [LICET_LISTEN]",
        ),
    ] = None,
    socket: _Socket = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that serve, all on one port; as many as this process may use cores, "
            "unless told. [LICET_WORKERS]",
        ),
    ] = None,
    data_dir: _DataDir = None,
    insecure_bind: Annotated[
        bool,
        typer.Option(
            "--insecure-bind",
            help="Serve without TLS on an address that is not loopback. [LICET_INSECURE_BIND]",
        ),
    ] = False,
    policy_file: _PolicyFile = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="Least level logged: DEBUG, INFO, WARNING, ERROR. [LICET_LOG_LEVEL]",
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="text|json", help="[LICET_LOG_FORMAT]")
    ] = None,
) -> int:
    """Serve, on an embedded PostgreSQL or on that of LICET_DATABASE_URL, until Ctrl-C or SIGTERM.

    The database's address comes from the environment only: every user of this machine can see the
    options of a running command, and the address may hold a password. Further settings do as well.
    """
    # gRPC's newer poller costs a server written in Python 15 % of its throughput. The environment
    # is read when gRPC is imported; a name that a later gRPC does not know is ignored.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    # Its own log of errors, neither text nor JSON of ours; licet says what matters.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from licet.cli.serving import run  # noqa: PLC0415 - see above, and the package

    return run(
        listen=listen,
        socket=socket,
        workers=workers,
        data_dir=data_dir,
        insecure_bind=insecure_bind or None,
        policy_file=policy_file,
        log_level=log_level,
        log_format=log_format,
    )
