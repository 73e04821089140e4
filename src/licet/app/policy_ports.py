"""What the use cases of policies need from the outside; see `ports.py` for the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from licet.app.ports import Deadline
from licet.domain.instant import Instant
from licet.domain.names import Caller
from licet.domain.policy_cases import Cases
from licet.domain.policy_document import PolicyDocument
from licet.domain.policy_set import PolicySet

ActivePolicies: TypeAlias = "Callable[[Deadline], PolicySet | None]"
"""Returns the policies that hold now, from memory or from the database; None: none was ever put.

Raises:
    UnavailableError: it cannot be known, or the set cannot be used here; nothing may be decided.
    DeadlineError: the deadline passed first.
"""


class StoredPolicySet(NamedTuple):
    """A version of the policies. `rollback_of` is the version whose document it has, if any."""

    version: int
    source: str
    comment: str
    rollback_of: int | None
    put_at: Instant
    put_by: Caller
    revision: int


class PolicySetStore(Protocol):
    """Policy sets as stored. Every method raises UnavailableError or DeadlineError."""

    def find(self, version: int | None, deadline: Deadline) -> StoredPolicySet | None:
        """Return a version, the one that holds for None; None when there is none."""
        ...

    def page(self, before: int | None, limit: int, deadline: Deadline) -> Sequence[StoredPolicySet]:
        """Return the latest `limit` versions before one, without their documents."""
        ...


class ReadDocuments(Protocol):
    """Reads what people write. Every method raises DocumentError."""

    def policies(self, source: str) -> PolicyDocument:
        """Read a policy document."""
        ...

    def cases(self, source: str) -> Cases:
        """Read a document of cases."""
        ...
