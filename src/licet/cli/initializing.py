"""Makes the first key, in the configured database or in the embedded one."""

from __future__ import annotations

from pathlib import Path

from licet.app.new_keys import FirstKey, first_key_change
from licet.cli import migrating
from licet.cli.errors import CommandError
from licet.domain.errors import InvalidRequestError
from licet.domain.names import LABEL_BYTES, label
from licet.storage import first_key as stored
from licet.storage import migrate
from licet.writer.ids import RandomKeys
from licet.writer.keys import raise_refusal


def first_key(data_dir: Path | None, name: str, *, again: bool) -> FirstKey:
    """Make an admin key and return its text. Raises CommandError."""
    try:
        checked = label(name, "--name", LABEL_BYTES)
    except InvalidRequestError as exc:
        raise CommandError(str(exc)) from None
    if not checked:
        raise CommandError("--name is required")
    with migrating.administrator_url(data_dir) as url:
        if not any(state.applied for state in migrate.status(url)):
            migrate.up(url)
        with stored.connected(url) as connection:
            mint = RandomKeys(stored.read_tag_key(connection))
            change, made = first_key_change(checked, mint, again=again)
            applied = stored.make(connection, change.as_admin_change())
        if applied.status == "KEYS_EXIST":
            raise CommandError("there are API keys already; with --again another admin's is made")
        raise_refusal(applied.status)
    return made
