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
from licet.steward.state_file import Signed, StateBusyError, StateFile

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

        None also while another process of this host signs.

        Raises:
            RefusalError: the log is not one that what was signed before grew into.
            StateFileError: the state file cannot be used.
            UnavailableError: the database is lost; what was signed may not be published.
        """
        try:
            with self._state.held():
                return self._sign()
        except StateBusyError:
            return None

    def examine(self, head: Head) -> Signed | None:
        """Return what was signed last, when the log is one that it grew into.

        Only for who holds the state file, with a head that was read meanwhile: an older one is
        rightly behind what another process has signed since.

        Raises:
            RefusalError, StateFileError: see `step`.
        """
        signed = self._state.read()
        if signed is not None:
            self._check(head, signed)
        elif head.epoch > 1 or self._checkpoints.latest_size(head.epoch) is not None:
            raise RefusalError(
                f"{self._state.path} is missing, and checkpoints were signed before: restore"
                " it, or begin a new epoch"
            )
        return signed

    def _sign(self) -> Checkpoint | None:
        head = self._checkpoints.head()
        signed = self.examine(head)
        latest = self._checkpoints.latest_size(head.epoch)
        if signed is not None and signed.size == head.size == latest:
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
