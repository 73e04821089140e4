"""The policies that hold, as a replica remembers them: under the lease, like capability sets.

Invariants:

- They are looked up for each decision, under the lease; so a set holds everywhere with the revision
  that put it.
- A set that cannot be compiled here is remembered as such, and no decision is taken: a rule that
  cannot be read is not one that does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from threading import Lock
from typing import Final, NamedTuple

from licet.app.ports import Deadline
from licet.domain.document import DocumentError
from licet.domain.errors import UnavailableError
from licet.domain.policy_set import PolicySet
from licet.replica.capability_sets import Cached
from licet.replica.lease import Lease

_log: Final = logging.getLogger(__name__)

POLICY_NAME: Final = "/policy"
"""How the set that holds is named in the changes; see the migration. No principal is called so."""
_BYTES: Final = 1 << 20
"""Room for the one entry; a set's own weight is not counted."""


class HeldPolicies(NamedTuple):
    """What memory has of the policies. Never changes.

    Attributes:
        revision: of the snapshot that it was read in.
        policies: the set that holds; None: there is none, or it cannot be used.
        refusal: why it cannot be used; empty: it can.
    """

    revision: int
    policies: PolicySet | None
    refusal: str

    @property
    def extra_bytes(self) -> int:
        """See `capability_sets.Entry`."""
        return 0

    @property
    def size(self) -> int:
        """See `capability_sets.Entry`."""
        return 0 if self.policies is None else 1


class HeldPolicySet:
    """Returns the policies that hold: `app.policy_ports.ActivePolicies`."""

    def __init__(
        self,
        read: Callable[[Deadline], tuple[int, int | None, str]],
        compile_set: Callable[[str, int], PolicySet],
        lease: Lease,
    ) -> None:
        """Compose it.

        Args:
            read: returns the revision and, of one snapshot, version and document of the set that
                holds; see `storage.policies`.
            compile_set: compiles a document; raises DocumentError.
            lease: under which memory is used.
        """
        self._read = read
        self._compile = compile_set
        self._held: Cached[str, HeldPolicies] = Cached(self._load, lease, _BYTES, 1)
        # Guards the compiled set: one thread compiles it, the others wait for that.
        self._mutex = Lock()
        self._compiled: tuple[int, str, PolicySet | None, str] = (0, "", None, "")
        self.reads = 0
        """How often the set that holds was read because memory had none."""

    def __call__(self, deadline: Deadline) -> PolicySet | None:
        """See `ActivePolicies`."""
        held = self._held.get(POLICY_NAME, deadline)
        if held.refusal:
            raise UnavailableError(held.refusal)
        return held.policies

    @property
    def version(self) -> int:
        """The version compiled last; 0: none."""
        return self._compiled[0]

    def evict(self, names: Iterable[str] | None, revision: int) -> None:
        """See `coherence.Memory.evict`."""
        touched = None if names is None else [name for name in names if name == POLICY_NAME]
        self._held.evict(touched, revision)

    def reset(self, revision: int) -> None:
        """See `coherence.Memory.reset`."""
        self._held.reset(revision)

    def _load(self, names: Collection[str], deadline: Deadline) -> Mapping[str, HeldPolicies]:
        revision, version, source = self._read(deadline)
        self.reads += 1
        held = HeldPolicies(revision, None, "")
        if version is not None:
            held = HeldPolicies(revision, *self._compiled_set(version, source))
        return dict.fromkeys(names, held)

    def _compiled_set(self, version: int, source: str) -> tuple[PolicySet | None, str]:
        with self._mutex:
            # The document as well: a restored database may have another one of that version.
            if self._compiled[:2] != (version, source):
                self._compiled = (version, source, *self._compile_or_refuse(version, source))
            return self._compiled[2:]

    def _compile_or_refuse(self, version: int, source: str) -> tuple[PolicySet | None, str]:
        try:
            return self._compile(source, version), ""
        except DocumentError as exc:
            # Whoever put it could use it: this is another release, or not what was put.
            fault = exc.faults[0].describe()
            refusal = f"policy set {version} cannot be used by this server: {fault}"
        except Exception:  # noqa: BLE001 - whatever it is, nothing may be decided
            _log.exception("policy set %d cannot be compiled", version)
            refusal = f"policy set {version} cannot be used by this server"
        _log.error("%s; nothing is decided", refusal)
        return None, refusal
