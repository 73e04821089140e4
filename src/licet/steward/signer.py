"""Signs checkpoints: at most one for a size, and none that a checkpoint before it contradicts.

What is about to be signed is written to the state file first. So after a crash between the two the
file may be ahead of what was published, and never behind.
"""

from __future__ import annotations

import logging
from typing import Final

from licet.app.sealing import Checkpoints, Head
from licet.domain.checkpoint import Checkpoint, sign_checkpoint
from licet.domain.merkle_proof import StoredTree, verify_consistency
from licet.steward.signing import Ed25519Signer
from licet.steward.state_file import Signed, StateFile

_log: Final = logging.getLogger(__name__)


class RefusalError(Exception):
    """Signing would contradict what was signed before. Only an operator can decide what is true."""


class CheckpointSigner:
    """Signs the log's head whenever it has grown."""

    def __init__(self, checkpoints: Checkpoints, signer: Ed25519Signer, state: StateFile) -> None:
        """Compose it."""
        self._checkpoints = checkpoints
        self._signer = signer
        self._state = state

    def step(self) -> Checkpoint | None:
        """Sign the head if it has grown since, and return the new checkpoint.

        Raises:
            RefusalError: the log is not one that what was signed before grew into.
            StateFileError: the state file cannot be used.
            UnavailableError: the database is lost; what was signed may not be published.
        """
        head = self._checkpoints.head()
        signed = self._state.read()
        latest = self._checkpoints.latest_size(head.epoch)
        if signed is None:
            if latest is not None:
                raise RefusalError(
                    f"{self._state.path} is missing, and checkpoints were signed before: restore"
                    " it, or begin a new epoch"
                )
        else:
            self._check(head, signed)
            if (signed.origin, signed.size) == (head.origin, head.size) and latest == head.size:
                return None
        statement = Checkpoint(head.origin, head.size, head.root)
        self._state.write(Signed(*statement[:3]))
        note = sign_checkpoint(statement, self._signer.named(head.origin)).text()
        self._checkpoints.publish(head, note)
        return statement

    def _check(self, head: Head, signed: Signed) -> None:
        if signed.origin != head.origin:
            raise RefusalError(
                f"the log is {head.origin}, and {signed.origin} was signed last: another database,"
                " or an epoch that was begun elsewhere"
            )
        if head.size < signed.size:
            raise RefusalError(
                f"ROLLBACK: the log has {head.size} leaves, and {signed.size} were signed"
            )
        if head.size == signed.size:
            if head.root != signed.root:
                raise RefusalError(f"FORK: another log of {head.size} leaves was signed")
            return
        read = self._checkpoints.reader(head.epoch)
        try:
            proof = StoredTree(head.size, read).consistency_proof(signed.size)
        except ValueError as exc:
            raise RefusalError(f"the stored tree is damaged: {exc}") from exc
        if not verify_consistency(signed.size, head.size, signed.root, head.root, proof):
            raise RefusalError(
                f"FORK: the log of {head.size} leaves did not grow from the {signed.size} signed"
            )
