"""Which database a command works on, and how it is named without its password."""

from __future__ import annotations

import re
import shlex
from typing import Final
from urllib.parse import parse_qs, unquote

from licet import config
from licet.storage.embedded import data_folder

# Strict: where a character of the password was not encoded, it does not pass for a host.
_HOST: Final = r"(?:[\w.%-]+|\[[\da-fA-F:.]+\])(?::\d+)?"
_URL: Final = re.compile(
    rf"postgres(?:ql)?://(?:[^@/?#]*@)?(?P<host>(?:{_HOST}(?:,{_HOST})*)?)"
    r"(?:/(?P<dbname>[\w%-]*))?(?:\?(?P<query>[^@]*))?",
    re.ASCII,
)


def describe(settings: config.Settings) -> str:
    """Name the database for people: where it is, and never a user or a password."""
    if settings.database_url is None:
        return f"embedded PostgreSQL in {data_folder(settings.data_dir)}"
    place = _place(settings.database_url.get_secret_value())
    return f"PostgreSQL {place}" if place else "PostgreSQL of LICET_DATABASE_URL"


def _place(url: str) -> str:
    """Return host and database, or nothing where anything is unclear: it could be a secret."""
    parameters: dict[str, str]
    found = _URL.fullmatch(url)
    if found is not None:
        parameters = {key: unquote(value or "") for key, value in found.groupdict().items()}
        query = parse_qs(found["query"] or "")
        parameters |= {key: values[-1] for key, values in query.items()}
    elif "://" in url:
        return ""
    else:
        try:
            pairs = [word.partition("=") for word in shlex.split(url)]
        except ValueError:
            return ""
        if not all(separator for _, separator, _ in pairs):
            return ""
        parameters = {key: value for key, _, value in pairs}
    host = parameters.get("host", "")
    port = parameters.get("port", "")
    at = f"at {host}:{port}" if host and port else f"at {host}" if host else ""
    dbname = parameters.get("dbname", "")
    return ", ".join(filter(None, (at, f"database {dbname}" if dbname else "")))
