"""`licet health`: for people, scripts and container health checks."""

from __future__ import annotations

from licet.cli import output
from licet.cli.invocation import Invocation


def health(invocation: Invocation) -> int:
    """Ask whether the server is ready to decide.

    Exits with 0 when it is SERVING, 1 when it says that it is not, and 2 when nobody answers.
    """
    with invocation.client() as client:
        status = client.health()
    if invocation.as_json:
        output.print_json({"address": invocation.address, "status": status.value})
    else:
        line = output.text(status.value)
        line.append_text(output.text(f" at {invocation.address}"))
        output.console().print(line)
    return 0 if status == "SERVING" else 1
