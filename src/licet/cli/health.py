"""`licet health`: for people, scripts and container health checks."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from licet.cli import output
from licet.cli.invocation import Invocation

# Where the settings of a server with TLS may be.
_VARIABLES: Final = ("LICET_TLS_CERT_FILE", "LICET_CONFIG_FILE")
_LOOPBACK: Final = ("127.0.0.1:", "[::1]:", "localhost:")


def health(invocation: Invocation) -> int:
    """Ask whether the server is ready to decide.

    Exits with 0 when it is SERVING, 1 when it says that it is not, and 2 when nobody answers. With
    the settings of a server that has TLS, as in its container, it needs no option to call it.
    """
    with _for_own_server(invocation).client() as client:
        status = client.health()
    if invocation.as_json:
        output.print_json({"address": invocation.address, "status": status.value})
    else:
        line = output.text(status.value)
        line.append_text(output.text(f" at {invocation.address}"))
        output.console().print(line)
    return 0 if status == "SERVING" else 1


def _for_own_server(invocation: Invocation) -> Invocation:
    """Add what the settings of a server say, if this calls the one that has them."""
    has_settings = any(map(os.environ.get, _VARIABLES))
    if invocation.tls.ca_file is not None or not has_settings:
        return invocation
    if not invocation.address.startswith(_LOOPBACK):
        return invocation
    from licet.cli.own_server import tls_of_settings  # noqa: PLC0415 - see the package

    own = tls_of_settings()
    if own.ca_file is None:
        return invocation
    # A pair of the invocation's own takes the place of the server's whole.
    given = invocation.tls
    if given.cert_file is not None or given.key_file is not None:
        own = own._replace(cert_file=None, key_file=None)
    return replace(invocation, tls=own.changed(given))
