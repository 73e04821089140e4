"""`licet audit checkpoint`, `prove` and `export`: what the log's server proves, as files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from licet.cli import output
from licet.cli.errors import CommandError
from licet.cli.invocation import Invocation
from licet.domain.checkpoint import Checkpoint, checkpoint, open_checkpoint
from licet.domain.merkle import leaf_hash
from licet.domain.merkle_proof import verify_consistency, verify_inclusion
from licet.domain.signed_note import (
    MalformedNoteError,
    VerifierKey,
    encode_base64,
    signed_note,
    verifier_key,
)

if TYPE_CHECKING:  # importing it would import gRPC
    from licet.client import LogCheckpoint, LogProof

KeyOption: TypeAlias = Annotated[
    str | None, typer.Option("--key", help="The log's public key: name+id+base64.")
]
KeyFileOption: TypeAlias = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="A file that holds it.")
]
EpochOption: TypeAlias = Annotated[
    int, typer.Option("--epoch", min=0, max=32_767, help="The epoch; 0: the current one.")
]
_Size: TypeAlias = Annotated[int, typer.Option("--size", min=0, help="Of so many leaves.")]
_Event: TypeAlias = Annotated[
    str, typer.Argument(metavar="[EVENT]", help="The event's id: that of a decision.")
]
_Since: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Prove that the log only grew since this checkpoint."),
]
_Leaf: TypeAlias = Annotated[
    Path | None,
    typer.Option("--leaf", metavar="FILE", help="The event's leaf, if it is in an archive."),
]
_File: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")]
_From: TypeAlias = Annotated[int, typer.Option("--from", min=0, help="The first leaf.")]
_To: TypeAlias = Annotated[
    int, typer.Option("--to", min=0, help="The leaf behind the last; 0: all that are signed.")
]
_NOT_VERIFIED: Final = 1


def key_of(key: str | None, key_file: Path | None) -> VerifierKey | None:
    """Return the public key that was given. Raises CommandError."""
    if key is not None and key_file is not None:
        raise CommandError("give --key or --key-file, not both")
    text = key if key_file is None else text_of(key_file)
    if text is None:
        return None
    try:
        return verifier_key(text.strip())
    except MalformedNoteError as exc:
        raise CommandError(f"the public key: {exc}") from exc


def text_of(path: Path) -> str:
    """Return what a file holds. Raises CommandError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CommandError(f"cannot read {path}: {exc}") from exc


def opened(note: str, key: VerifierKey | None) -> Checkpoint:
    """Return the checkpoint of a note, verified if there is a key. Raises ValueError."""
    if key is None:
        return checkpoint(signed_note(note).body)
    from licet.steward.signing import verify_ed25519  # noqa: PLC0415 - see the package

    origin = note.partition("\n")[0]
    if origin.startswith(f"{key.name}/"):
        key = VerifierKey(origin, key.public_key)
    return open_checkpoint(note, key, verify_ed25519)


def get_checkpoint(
    invocation: Invocation,
    size: _Size = 0,
    epoch: EpochOption = 0,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
) -> int:
    """Print the latest signed checkpoint, to be kept where the log's operator cannot reach it.

    With a key it is verified: exits with 1, and prints nothing, when it is not this key's.
    """
    trusted = key_of(key, key_file)
    with invocation.client() as client:
        found = client.proofs.checkpoint(size, epoch=epoch)
    if not _holds(lambda: opened(found.note, trusted) is not None):
        return _NOT_VERIFIED
    if invocation.as_json:
        output.print_json(_as_json(found) | {"public_key": found.public_key})
    else:
        sys.stdout.write(found.note)
    return 0


def prove(
    invocation: Invocation,
    event: _Event = "",
    since: _Since = None,
    leaf: _Leaf = None,
    key: KeyOption = None,
    key_file: KeyFileOption = None,
) -> int:
    """Print the proof that an event is in the log, or that the log only grew.

    It is verified before it is printed: exits with 1, and prints nothing, when it does not hold.
    Without a key, the checkpoint that it leads to is the server's word.
    """
    if bool(event) == (since is not None):
        raise CommandError("name an event, or a checkpoint with --since")
    trusted = key_of(key, key_file)
    if since is None:
        with invocation.client() as client:
            proof = client.proofs.inclusion(event)
        shown = proof.leaf or _archived(leaf)
        holds = _holds(lambda: _is_included(proof, shown, opened(proof.checkpoint.note, trusted)))
    else:
        try:
            old = opened(text_of(since), trusted)
        except ValueError as exc:
            raise CommandError(f"{since}: {exc}") from exc
        with invocation.client() as client:
            proof = client.proofs.consistency(old.size)
        holds = _holds(lambda: _is_consistent(proof, old, opened(proof.checkpoint.note, trusted)))
    if not holds:
        return _NOT_VERIFIED
    if invocation.as_json:
        output.print_json(_as_json(proof.checkpoint) | {"proof": proof.text})
    else:
        sys.stdout.write(proof.text)
    return 0


def export(
    invocation: Invocation,
    file: _File,
    first: _From = 0,
    end: _To = 0,
    epoch: EpochOption = 0,
) -> int:
    """Write leaves to an archive, and what it is verified with to FILE.checkpoint and FILE.cover.

    `tools/licet_audit_verifier.py` verifies them without licet.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        with invocation.client() as client, part.open("wb") as target:
            found = client.proofs.export(first, end, epoch=epoch)
            for piece in found.archive:
                target.write(piece)
        file.with_name(f"{file.name}.checkpoint").write_text(found.checkpoint.note, "utf-8")
        if found.cover:
            file.with_name(f"{file.name}.cover").write_text(found.cover, "utf-8")
        part.replace(file)
    except OSError as exc:
        raise CommandError(f"cannot write {file}: {exc}") from exc
    finally:
        part.unlink(missing_ok=True)
    if invocation.as_json:
        facts = {"file": str(file), "first_leaf": found.first_leaf, "end_leaf": found.end_leaf}
        output.print_json(_as_json(found.checkpoint) | facts)
    else:
        last = found.end_leaf - 1
        output.console().print(output.text(f"leaves {found.first_leaf} to {last} are in {file}"))
    return 0


def _archived(leaf: Path | None) -> bytes:
    if leaf is None:
        raise CommandError("the event is no longer in the database: give its leaf with --leaf")
    try:
        return leaf.read_bytes()
    except OSError as exc:
        raise CommandError(f"cannot read {leaf}: {exc.strerror}") from exc


def _is_included(proof: LogProof, leaf: bytes, statement: Checkpoint) -> bool:
    hashed = leaf_hash(leaf)
    return verify_inclusion(hashed, proof.leaf_index, statement.size, proof.hashes, statement.root)


def _is_consistent(proof: LogProof, old: Checkpoint, new: Checkpoint) -> bool:
    return old.origin == new.origin and verify_consistency(
        old.size, new.size, old.root, new.root, proof.hashes
    )


def _holds(verify: Callable[[], bool]) -> bool:
    """Say on standard error when something does not verify."""
    why = "the proof does not lead to the checkpoint"
    try:
        if verify():
            return True
    except ValueError as exc:
        why = str(exc)
    sys.stderr.write(f"licet: not verified: {why}\n")
    return False


def _as_json(found: LogCheckpoint) -> dict[str, object]:
    return {
        "checkpoint": found.note,
        "origin": found.origin,
        "size": found.size,
        "root": encode_base64(found.root),
        "epoch": found.epoch,
    }
