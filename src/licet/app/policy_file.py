"""The policies of a file in development: put when they are not the ones that hold."""

from __future__ import annotations

from typing import Final

from licet.app.policies import ManagePolicies, PutPolicySetCommand
from licet.app.policy_ports import ReadDocuments
from licet.app.ports import Deadline
from licet.domain.caller import Identity, Scope
from licet.domain.document import DocumentError
from licet.domain.errors import InvalidRequestError, NotFoundError
from licet.domain.names import REASON_BYTES, Caller

POLICY_FILE: Final = Identity.of(Caller("caller:policy-file"), {Scope.POLICY})
"""As whom it is put: the actor of its audit events."""


class PolicyFileError(Exception):
    """What a file holds cannot be put; the message names each fault and its place, for people."""


class PutPolicyFile:
    """See the module."""

    def __init__(self, policies: ManagePolicies, documents: ReadDocuments, name: str) -> None:
        """Compose the use case; `name` is that of the file, for people."""
        self._policies = policies
        self._documents = documents
        self._name = printable(name)

    def __call__(self, source: str, deadline: Deadline) -> int | None:
        """Have a document hold; return its version, or None if it is the one that holds already.

        A document without policies would lift them all, and is refused: that is what is left of one
        that is just being written.

        Raises:
            PolicyFileError: it cannot be used; nothing happened.
            PreconditionError: another one was put at the same moment; the attempt is on record.
            UnavailableError, OutcomeUnknownError: see `ManagePolicies.put`.
        """
        version, held = self._held(deadline)
        if source == held:
            return None
        self._check(source)
        comment = f"the file {self._name}"
        command = PutPolicySetCommand(
            source=source,
            comment=comment.encode()[:REASON_BYTES].decode(errors="ignore"),
            # Two that follow a file, as for a moment when one process takes the place of another,
            # put a document once.
            expected_version=version,
            request_id="",
            only_check=False,
        )
        try:
            return self._policies.put(command, POLICY_FILE, deadline).version
        except InvalidRequestError as exc:
            faults = (f"{self._name}: {violation.rule}" for violation in exc.violations)
            raise PolicyFileError("; ".join(map(printable, faults))) from None

    def _held(self, deadline: Deadline) -> tuple[int, str]:
        try:
            held = self._policies.get(None, deadline)
        except NotFoundError:
            return 0, ""
        return held.version, held.source

    def _check(self, source: str) -> None:
        try:
            found = self._documents.policies(source)
        except DocumentError as exc:
            faults = (
                f"{self._name}:{fault.place.line}:{fault.place.column}: {fault.message}"
                for fault in exc.faults
            )
            raise PolicyFileError("; ".join(map(printable, faults))) from None
        if not found.policies:
            raise PolicyFileError(
                f"{self._name} has no policies: a file does not lift them, `licet policy put` does"
            )


def printable(text: str) -> str:
    """Return a text from outside as it may stand in a line of a log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
