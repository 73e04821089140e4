"""Agents: programs that come and go, each a principal `agent:<name>` with a token of its own.

    bootstrap token    lets its holder register so many agents, until it ends, and do nothing else
    agent token        lives for a day; its holder asks about, and delegates as, its own agent only

Both have the text of an API key (`api_key.py`), and are looked up in the same way.

Invariant: the name of an agent has no `*`, so that the pattern in the limits of its token is
exactly its own principal.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

from licet.domain import names
from licet.domain.api_key import KeyId
from licet.domain.caller import Credential, Identity, Limits, Scope
from licet.domain.errors import InvalidRequestError
from licet.domain.instant import Instant
from licet.domain.names import Caller, Principal
from licet.domain.pattern import ResourcePattern, contains, resource_pattern

TOKEN_SECONDS: Final = 86_400.0
"""How long an agent's token lives."""
OVERLAP_SECONDS: Final = 300.0
"""How long one goes on that was rotated: for calls on their way, and for an answer that is lost."""
SILENT_BEATS: Final = 3
"""So many heartbeats may be missed; then an agent is offline."""
MAX_USES: Final = 10_000
MAX_BOOTSTRAP_SECONDS: Final = 30 * 86_400
DEFAULT_BOOTSTRAP_SECONDS: Final = 3600
MAX_NAME_BYTES: Final = 128
MAX_HOSTNAME_BYTES: Final = 253
MAX_PUBLIC_KEY_BYTES: Final = 4096
ANY_AGENT: Final = ResourcePattern("agent:**")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_HOSTNAME: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)


class AgentStatus(StrEnum):
    """Whether an agent works; for people, not for decisions: only `inactive` ends its tokens."""

    ACTIVE = "active"
    """It was heard of."""
    OFFLINE = "offline"
    """It was not heard of for three heartbeats; the next one makes it active."""
    INACTIVE = "inactive"
    """It was deactivated."""


class Agent(NamedTuple):
    """An agent as stored.

    Attributes:
        name: its principal without the type.
        hostname: of its host; no two agents that are not inactive have the same.
        address: where it is reached, as it says.
        public_key: PEM, as it says; empty: none. licet authenticates nobody by it.
        status: see there.
        created_at: when it was registered first.
        registered_at: when it was registered last, with the next two.
        registered_by: with which bootstrap token, as a caller.
        revision: of that.
        heard_at: when its last heartbeat came; None: none has been stored yet.
        offline_at: since when it is offline; None: it is not.
        token_id: of its newest token that has not ended; empty: it has none.
        token_expires_at: when that ends by itself.
        deactivated_at: when it was deactivated, with the next two; None: it is not.
        deactivated_by: by whom.
        reason: why.
    """

    name: str
    hostname: str
    address: str
    public_key: str
    status: AgentStatus
    created_at: Instant
    registered_at: Instant
    registered_by: Caller
    revision: int
    heard_at: Instant | None
    offline_at: Instant | None
    token_id: str
    token_expires_at: Instant | None
    deactivated_at: Instant | None
    deactivated_by: str
    reason: str


class BootstrapToken(NamedTuple):
    """A bootstrap token as stored, without its secret.

    Attributes:
        token_id: public, and part of its text.
        name: for people.
        principals: patterns of the agents that may be registered with it.
        max_uses: how many registrations it is good for.
        uses: how many there were.
        expires_at: when it ends.
        created_at: when it was made.
        created_by: by whom.
        revision: with which.
        ended_at: when it was revoked, with the next two; None: it was not.
        ended_by: by whom.
        end_reason: why.
    """

    token_id: KeyId
    name: str
    principals: tuple[ResourcePattern, ...]
    max_uses: int
    uses: int
    expires_at: Instant
    created_at: Instant
    created_by: Caller
    revision: int
    ended_at: Instant | None
    ended_by: str
    end_reason: str


def agent_principal(name: str) -> Principal:
    """Return the principal of an agent, whose name was checked."""
    return Principal(f"agent:{name}")


def agent_identity(name: str, token_id: str, dies_at: Instant) -> Identity:
    """Return whom an agent's token authenticates."""
    principal = agent_principal(name)
    own = Limits(principals=(ResourcePattern(principal),))
    return Identity.of(
        Caller(principal), (Scope.AUTHORIZE,), own, token_id, dies_at, Credential.AGENT
    )


def bootstrap_identity(
    token_id: str, principals: tuple[ResourcePattern, ...], expires_at: Instant
) -> Identity:
    """Return whom a bootstrap token authenticates: somebody who has no scope at all."""
    limits = Limits(principals=principals)
    caller = Caller(f"bootstrap:{token_id}")
    return Identity.of(caller, (), limits, token_id, expires_at, Credential.BOOTSTRAP)


def agent_name(text: str, field: str = "name") -> str:
    """Check the name of an agent.

    Raises:
        InvalidRequestError: `field` breaks a rule.
    """
    if not text:
        raise InvalidRequestError.of(field, "is required")
    if len(text) > MAX_NAME_BYTES or _NAME.fullmatch(text) is None:
        raise InvalidRequestError.of(
            field,
            f"must be an agent's name: at most {MAX_NAME_BYTES} of [A-Za-z0-9._-], in segments with"
            " `/` between them that begin with a letter or a digit",
        )
    return text


def hostname(text: str, field: str = "hostname") -> str:
    """Check a host's name and bring it to lower case.

    Raises:
        InvalidRequestError: `field` breaks a rule.
    """
    if not text:
        raise InvalidRequestError.of(field, "is required")
    name = text.lower()
    # Looked at as it was sent: other letters become ASCII in lower case.
    if len(text) > MAX_HOSTNAME_BYTES or not text.isascii() or _HOSTNAME.fullmatch(name) is None:
        raise InvalidRequestError.of(
            field, "must be a host's name: labels of [a-z0-9-] with dots between them"
        )
    return name


def agent_pattern(text: str, field: str) -> ResourcePattern:
    """Check a pattern of agents.

    Raises:
        InvalidRequestError: it is no pattern, or matches others than agents.
    """
    pattern = resource_pattern(text, field)
    if len(pattern.encode()) > names.PRINCIPAL_BYTES:
        raise InvalidRequestError.of(field, f"must have at most {names.PRINCIPAL_BYTES} bytes")
    if not contains(ANY_AGENT, pattern):
        raise InvalidRequestError.of(field, "must be a pattern of agents, like `agent:workers/*`")
    return pattern
