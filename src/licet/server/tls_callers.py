"""Which clients with a certificate are which callers: a table in a TOML file, followed like it.

    [[caller]]
    name = "service:gateway"
    spiffe_id = "spiffe://example.org/ns/prod/sa/gateway"
    scopes = ["authorize"]

Instead of `spiffe_id`: `subject`, the whole distinguished name as RFC 4514 writes it, or
`common_name`. Nothing is a pattern, and nobody is in it twice: what a line says can be read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import time
from typing import Final, TypeAlias

from cryptography import x509

from licet.domain.caller import Identity, Scope, acting_name
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import from_datetime
from licet.domain.names import Caller
from licet.server.followed import Contents, FileRefusedError, read_file
from licet.server.peer import PeerRefusedError, SpiffeId, TlsPeer, peer_of, spiffe_id

SETTING: Final = "LICET_TLS_CALLERS_FILE"
_CERTIFICATE: Final = "x509_pem_cert"
_SCOPES: Final = tuple(Scope)  # not a set: what is asked for may be anything
_KEYS: Final = ("spiffe_id", "subject", "common_name")
_REMEMBERED: Final = 1024

_Known: TypeAlias = SpiffeId | x509.Name | str
AuthContext: TypeAlias = Mapping[str, Sequence[bytes]]
"""What `ServicerContext.auth_context()` returns."""


@dataclass(frozen=True, slots=True)
class TlsCallers:
    """The table. Any thread may ask; it never changes, a new one takes its place.

    Attributes:
        callers: by SPIFFE ID, distinguished name or common name.
    """

    callers: Mapping[_Known, Identity]
    # By the bytes of the certificate, the only name of a connection's peer that nobody else can
    # have: of its names gRPC does not say which kind they are, and addresses are used again.
    _remembered: dict[bytes, tuple[Identity | None, float]] = field(default_factory=dict)

    def caller_of(self, auth_context: AuthContext, now: float | None = None) -> Identity | None:
        """Return the caller at the other end of a connection; None: nobody in the table.

        Its credential is the certificate, and ends with it: what it makes may not outlive that.

        A certificate that expired on an open connection, or before TLS resumed a session, does not
        count: TLS does not look at it again.

        Args:
            auth_context: of any call on the connection.
            now: seconds since the Unix epoch, if not this instant.

        Raises:
            PeerRefusedError: the certificate has expired, or does not name anybody for certain.
        """
        found = auth_context.get(_CERTIFICATE)
        if not found:
            return None
        known = self._remembered.get(found[0])
        if known is None:
            peer = peer_of(found[0])
            known = (self._listed(peer), peer.expires_at.timestamp())
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[found[0]] = known
        caller, expires_at = known
        if (time() if now is None else now) >= expires_at:
            raise PeerRefusedError("the client's certificate has expired")
        return caller

    def _listed(self, peer: TlsPeer) -> Identity | None:
        if peer.spiffe_id is not None:
            caller = self.callers.get(peer.spiffe_id)
        else:
            caller = self.callers.get(peer.subject)
            if caller is None and peer.common_name is not None:
                caller = self.callers.get(peer.common_name)
        if caller is None:
            return None
        return replace(caller, expires_at=from_datetime(peer.expires_at))


def read_callers(path: Path) -> Contents:
    """Read the file. Raises FileRefusedError."""
    return (read_file(SETTING, path),)


def parse_callers(path: Path, contents: Contents) -> TlsCallers:
    """Return the table in a file.

    Raises:
        FileRefusedError: it is none, or says something twice.
    """
    try:
        return TlsCallers(_table(tomllib.loads(contents[0].decode("utf-8"))))
    except ValueError as exc:  # what is no TOML, or no UTF-8, is one
        raise FileRefusedError(f"{SETTING}: {path}: {exc}") from exc


def _table(document: dict[str, object]) -> dict[_Known, Identity]:
    callers: dict[_Known, Identity] = {}
    entries = document.pop("caller", [])
    if document or not isinstance(entries, list):
        raise ValueError("there may be tables [[caller]] and nothing else")
    for number, entry in enumerate(entries, start=1):
        try:
            known, caller = _entry(entry)
        except (ValueError, PeerRefusedError, InvalidRequestError) as exc:
            raise ValueError(f"caller {number}: {exc}") from exc
        if known in callers:
            raise ValueError(f"caller {number}: it is there already, as {callers[known].caller}")
        callers[known] = caller
    return callers


def _entry(entry: object) -> tuple[_Known, Identity]:
    if not isinstance(entry, dict):
        raise ValueError("it must be a table")  # noqa: TRY004 - of the file, not of the program
    given = [key for key in _KEYS if key in entry]
    if len(given) != 1 or entry.keys() - {*_KEYS, "name", "scopes"}:
        raise ValueError(
            "it has `name`, `scopes`, and one of `spiffe_id`, `subject` and `common_name`"
        )
    text, name, scopes = entry[given[0]], entry.get("name"), entry.get("scopes")
    if not isinstance(text, str) or not text or not isinstance(name, str):
        raise ValueError(f"`name` and `{given[0]}` must be texts")
    # As of a key: who may do nothing is not in the table.
    if not isinstance(scopes, list) or not scopes or not all(s in _SCOPES for s in scopes):
        raise ValueError(f"`scopes` must be a list of some of {', '.join(Scope)}")
    caller = Identity.of(Caller(acting_name(name, "name")), map(Scope, scopes))
    match given[0]:
        case "spiffe_id":
            return spiffe_id(text), caller
        case "subject":
            return x509.Name.from_rfc4514_string(text), caller
        case _:
            return text, caller
