"""`licet`: parses the command line, runs one command, and turns what happens into an exit status.

0    it is done; the decision is ALLOW
1    the decision is DENY; the server is not serving; a replica is not renewing; the audit log is
     not as it was written; a policy document cannot be used, or a case of it came out otherwise,
     or a decision on record would; some records of an import were rejected
2    it could not be done: wrong usage, or an error
130  Ctrl-C
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Final

import typer

from licet import __version__, is_compiled
from licet.cli import (
    agents,
    approvals,
    audit,
    audit_archive,
    audit_proofs,
    audit_verify,
    capabilities,
    epoch,
    keys,
    migrate,
    policy,
    policy_explain,
    policy_replay,
    policy_sets,
    principals,
    users,
)
from licet.cli.authorize import authorize
from licet.cli.errors import CommandError
from licet.cli.grant import delegate, grant
from licet.cli.health import health
from licet.cli.import_ import import_
from licet.cli.init import init
from licet.cli.invocation import (
    AddressOption,
    ApiKeyFileOption,
    Invocation,
    JsonOption,
    TimeoutOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsNameOption,
    TlsOptions,
    command,
)
from licet.cli.replicas import replicas
from licet.cli.revoke import revoke
from licet.cli.serve import serve
from licet.cli.steward import steward

ERROR: Final = 2
INTERRUPTED: Final = 130

app = typer.Typer(
    name="licet",
    help="May this principal do this action on this resource?",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command(hidden=True)(steward)
app.command()(init)
app.add_typer(migrate.app, name="migrate")
app.command()(replicas)
app.add_typer(epoch.app, name="epoch")
app.command()(command(grant))
app.command()(command(delegate))
app.command()(command(revoke))
app.command()(command(authorize))
app.add_typer(capabilities.app, name="capabilities")
audit.app.command()(command(audit_verify.verify))
audit.app.command("checkpoint")(command(audit_proofs.get_checkpoint))
audit.app.command()(command(audit_proofs.prove))
audit.app.command()(command(audit_proofs.export))
audit.app.command()(audit_archive.archive)
app.add_typer(audit.app, name="audit")
app.add_typer(keys.app, name="keys")
policy.app.command()(command(policy_sets.put))
policy.app.command()(command(policy_sets.show))
policy.app.command()(command(policy_sets.history))
policy.app.command()(command(policy_sets.rollback))
policy.app.command()(command(policy_replay.replay))
policy.app.command()(command(policy_explain.explain))
app.add_typer(policy.app, name="policy")
app.add_typer(approvals.app, name="approvals")
app.add_typer(users.app, name="users")
app.add_typer(principals.app, name="principals")
app.add_typer(agents.app, name="agents")
app.command("import")(command(import_))
app.command()(command(keys.whoami))
app.command()(command(health))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"licet {__version__}{', compiled' if is_compiled() else ''}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _before_the_command(
    context: typer.Context,
    address: AddressOption = None,
    api_key_file: ApiKeyFileOption = None,
    json: JsonOption = False,
    timeout: TimeoutOption = None,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_name: TlsNameOption = None,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> int:
    tls = TlsOptions(tls_ca, tls_cert, tls_key, tls_name)
    context.obj = Invocation.of_environment().changed(
        address, timeout, tls, api_key_file, as_json=json
    )
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return ERROR
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, that of this process unless told otherwise, and return its exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        # What the terminal's character set has not is shown escaped, and is no error.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(arguments, prog_name="licet", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as exc:
        return _fail(_usage(exc))
    except CommandError as exc:
        return _fail(str(exc))
    except typer.Abort:
        return _fail("not confirmed")
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - Python's own exit status for it is 1, which is a DENY here
        traceback.print_exc()
        return ERROR
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    command_path = "licet" if context is None else context.command_path
    return f"{error.format_message().rstrip('.')}. See `{command_path} --help`."


def _fail(message: str) -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"licet: {line}\n")
    return ERROR


if __name__ == "__main__":
    sys.exit(main())
