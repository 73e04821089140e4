"""Page tokens: positions, signed with a key of the database that all replicas share."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final, LiteralString

from licet.app.ports import Deadline
from licet.domain.errors import InvalidRequestError
from licet.storage.pool import Database

_KEY: Final[LiteralString] = "SELECT page_token_key FROM licet.meta"
_VERSION: Final = b"\x01"
_DIGEST_BYTES: Final = 8
_MAC_BYTES: Final = 16
_HEAD_BYTES: Final = len(_VERSION) + _DIGEST_BYTES


class SignedPageTokens:
    """See `ports.PageTokens`.

    Format: version, digest of the filter, position, HMAC-SHA256; all of it in base64url.
    """

    def __init__(self, key: bytes) -> None:
        """Sign with this key."""
        self._key = key

    @classmethod
    def from_database(cls, database: Database, deadline: Deadline) -> SignedPageTokens:
        """Read the key. Raises UnavailableError or DeadlineError."""
        with database.connection(deadline) as connection:
            row = connection.execute(_KEY).fetchone()
        if row is None:
            message = "licet.meta has no row"
            raise RuntimeError(message)
        return cls(bytes(row[0]))

    def seal(self, filter_digest: bytes, position: str) -> str:
        """See `ports.PageTokens.seal`."""
        body = _VERSION + filter_digest[:_DIGEST_BYTES] + position.encode()
        return base64.urlsafe_b64encode(body + self._mac(body)).decode()

    def open(self, filter_digest: bytes, token: str) -> str:
        """See `ports.PageTokens.open`."""
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raw = b""
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(self._mac(body), mac) or body[:1] != _VERSION:
            raise InvalidRequestError.of("page_token", "must be a next_page_token of this service")
        if body[len(_VERSION) : _HEAD_BYTES] != filter_digest[:_DIGEST_BYTES]:
            raise InvalidRequestError.of(
                "page_token", "must come with the filter of the page before"
            )
        return body[_HEAD_BYTES:].decode()

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_MAC_BYTES]
