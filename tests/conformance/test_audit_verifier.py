"""The stand-alone verifier, as an auditor runs it: on files made by licet, and on forged ones."""

from __future__ import annotations

import ast
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from licet.steward.signing import Ed25519Signer
from tests.conformance.make_vectors import FOLDER, LOG_FOLDER
from tests.fakes.audit_log import ORIGIN, AuditLog, recorded
from tests.fakes.audit_verifier import KEY, LEAVES, LOG, SIZE, VERIFIER, Folder, run

LEAF_VECTORS: Final = json.loads((FOLDER / "audit_leaf_v1.json").read_text("utf-8"))["vectors"]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def repacked(log: AuditLog, change: Callable[[bytes], bytes]) -> bytes:
    """Return the archive of a log whose content was changed."""
    return gzip.compress(change(gzip.decompress(log.archive())))


def test_it_needs_nothing_but_the_standard_library_and_cryptography() -> None:
    names = set()
    for node in ast.walk(ast.parse(VERIFIER.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(str(node.module).partition(".")[0])
    assert names - sys.stdlib_module_names == {"cryptography"}


# --- What is genuine is verified -----------------------------------------------------------------


def test_a_checkpoint_is_verified(folder: Folder) -> None:
    found = run("checkpoint", "--json", "--key", KEY, folder.file("c", LOG.note()))
    assert (found.status, found.report["errors"]) == (0, 0)
    assert found.report["checkpoint"]["size"] == SIZE
    assert found.report["checkpoint"]["origin"] == ORIGIN


def test_the_key_may_be_in_a_file_and_the_report_is_for_people(folder: Folder) -> None:
    key = folder.file("key", f"{KEY}\n")
    found = run("checkpoint", "--key-file", key, folder.file("c", LOG.note()))
    assert found.status == 0
    assert found.stdout.endswith("VERIFIED: 0 errors, 0 warnings\n")


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, SIZE), (SIZE - 1, SIZE), (70, 100)])
def test_an_inclusion_proof_is_verified_and_shows_the_event(
    folder: Folder, index: int, size: int
) -> None:
    proof = folder.file("p", LOG.inclusion(index, size))
    found = run("inclusion", "--json", "--key", KEY, proof)
    assert (found.status, found.report["index"]) == (0, index)
    assert found.report["event"]["principal"] == "agent:worker-17"
    bare = folder.file("b", LOG.inclusion(index, size, with_leaf=False))
    assert (
        run("inclusion", "--key", KEY, bare, "--leaf", folder.file("l", LEAVES[index])).status == 0
    )


@pytest.mark.parametrize(("old", "size"), [(0, SIZE), (1, SIZE), (SIZE, SIZE), (64, 128), (77, 99)])
def test_a_consistency_proof_is_verified(folder: Folder, old: int, size: int) -> None:
    proof = folder.file("p", LOG.consistency(old, size))
    earlier = folder.file("o", LOG.note(old))
    assert run("consistency", "--key", KEY, proof, "--old", earlier).status == 0


def test_a_whole_log_is_verified(folder: Folder) -> None:
    trusted = folder.file("trusted", LOG.note(33))
    found = folder.archive(LOG.archive(), more=("--trusted", trusted))
    assert (found.status, found.report["findings"]) == (0, [])
    assert found.report["leaves"] == SIZE
    assert found.report["writers"] == 3
    assert found.report["writers_not_closed"] == 0
    assert found.report["heartbeats"] == 3
    assert found.report["event_types"]["audit.writer_opened"] == 3


def test_a_log_may_be_in_several_archives_that_interleave(folder: Folder) -> None:
    found = folder.archive(LOG.archive((0, 10), (30, 50)), LOG.archive((10, 30), (50, SIZE)))
    assert (found.status, found.report["leaves"]) == (0, SIZE)


def test_leaves_that_nobody_shows_are_stood_for_by_a_cover(folder: Folder) -> None:
    cover = folder.file("cover", LOG.cover((0, 20), (60, 61), (100, SIZE)))
    found = folder.archive(LOG.archive((20, 60), (61, 100)), more=("--cover", cover))
    assert (found.status, found.report["findings"]) == (0, [])
    assert (found.report["leaves"], found.report["leaves_by_hash_only"]) == (79, SIZE - 79)


def test_the_published_files_are_verified() -> None:
    def check(command: str, *arguments: str) -> int:
        files = [str(LOG_FOLDER / a) if a[0] != "-" else a for a in arguments]
        return run(command, "--strict", "--key-file", LOG_FOLDER / "public.key", *files).status

    assert check("checkpoint", "checkpoint") == 0
    assert check("checkpoint", "old.checkpoint") == 0
    assert check("inclusion", "event.tlog-proof") == 0
    assert check("consistency", "growth.proof", "--old", "old.checkpoint") == 0
    whole = ("--checkpoint", "checkpoint", "--trusted", "old.checkpoint", "leaves.archive")
    assert check("archive", *whole) == 0
    assert check("archive", "--checkpoint", "checkpoint", "part.archive") == 1
    covered = ("--checkpoint", "checkpoint", "--cover", "part.cover", "part.archive")
    assert check("archive", *covered) == 0


@pytest.mark.parametrize("vector", LEAF_VECTORS, ids=lambda vector: vector["name"])
def test_it_reads_the_published_leaves_as_they_were_meant(
    folder: Folder, vector: dict[str, str]
) -> None:
    log = AuditLog([bytes.fromhex(vector["leaf"])])
    found = run("inclusion", "--json", "--key", KEY, folder.file("p", log.inclusion(0)))
    assert found.status == 0
    event = found.report["event"]
    assert event.pop("metadata") == json.loads(vector["metadata"], parse_int=str, parse_float=str)
    assert {name: str(value) for name, value in event.items()} == {
        name: vector[name] for name in event
    }
    assert len(event) == 14


def test_an_empty_log_is_verified(folder: Folder) -> None:
    empty = Folder(folder.file("x", "").parent, AuditLog())
    assert empty.archive(gzip.compress(b"")).status == 0


# --- What is forged is not -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [(f"\n{SIZE}\n", f"\n{SIZE + 1}\n"), (ORIGIN, "licet.example/other"), ("\n\n", "\nx\n\n")],
)
def test_a_changed_checkpoint_is_not_verified(folder: Folder, before: str, after: str) -> None:
    changed = folder.file("c", LOG.note().replace(before, after, 1))
    found = run("checkpoint", "--json", "--key", KEY, changed)
    assert (found.status, found.codes) == (1, {"checkpoint.unverified"})
    assert "checkpoint" not in found.report


def test_a_checkpoint_of_another_key_is_not_verified(folder: Folder) -> None:
    other = Ed25519Signer(ORIGIN, bytes(32)).key.text()
    found = run("checkpoint", "--json", "--key", other, folder.file("c", LOG.note()))
    assert (found.status, found.codes) == (1, {"checkpoint.unverified"})


def test_another_event_is_not_proved(folder: Folder) -> None:
    proof = folder.file("p", LOG.inclusion(70))
    for leaf in (LEAVES[71], LEAVES[70] + b"\0", b""):
        found = run("inclusion", "--json", "--key", KEY, proof, "--leaf", folder.file("l", leaf))
        assert (found.status, found.codes) == (1, {"inclusion.failed"})
        assert "event" not in found.report


@pytest.mark.parametrize("change", ["index", "hash", "cut", "extended", "leaf", "checkpoint"])
def test_a_changed_inclusion_proof_is_not_verified(folder: Folder, change: str) -> None:
    text = LOG.inclusion(70)
    head, note = text.split("\n\n", 1)
    lines = head.split("\n")
    changed = {
        "index": text.replace("index 70\n", "index 71\n"),
        "hash": text.replace(lines[3], lines[4]),
        "cut": "\n".join(lines[:-1]) + f"\n\n{note}",
        "extended": "\n".join([*lines, lines[-1]]) + f"\n\n{note}",
        "leaf": text.replace(lines[1], LOG.inclusion(71).split("\n")[1]),
        "checkpoint": f"{head}\n\n{LOG.note(SIZE - 1)}",
    }[change]
    assert changed != text
    found = run("inclusion", "--json", "--key", KEY, folder.file("p", changed))
    assert (found.status, found.codes) == (1, {"inclusion.failed"})


def test_a_log_that_was_rewritten_and_signed_again_is_found_by_a_kept_checkpoint(
    folder: Folder,
) -> None:
    kept = folder.file("kept", LOG.note(60))
    forged = AuditLog([*LEAVES[:40], recorded(1, 999), *LEAVES[41:]])
    proof = folder.file("p", forged.consistency(60))
    found = run("consistency", "--json", "--key", KEY, proof, "--old", kept)
    assert (found.status, found.codes) == (1, {"consistency.failed"})
    other = Folder(kept.parent, forged)
    found = other.archive(forged.archive(), more=("--trusted", kept))
    assert "trusted.fork" in found.codes
    assert found.status == 1
    same = folder.file("s", forged.consistency(60, 60))
    found = run("consistency", "--json", "--key", KEY, same, "--old", kept)
    assert found.codes == {"trusted.fork"}


def test_a_log_whose_end_was_cut_off_is_found_by_a_kept_checkpoint(folder: Folder) -> None:
    kept = folder.file("kept", LOG.note())
    short = AuditLog(LEAVES[:60])
    found = Folder(kept.parent, short).archive(short.archive(), more=("--trusted", kept))
    assert (found.status, found.codes) == (1, {"trusted.rollback"})
    # Without the kept checkpoint nothing is wrong with it: only who kept one can know.
    assert Folder(kept.parent, short).archive(short.archive()).status == 0
    proof = folder.file("p", short.consistency(60))
    found = run("consistency", "--json", "--key", KEY, proof, "--old", kept)
    assert found.status == 1


def test_a_consistency_proof_from_another_size_is_not_verified(folder: Folder) -> None:
    proof, old = folder.file("p", LOG.consistency(50)), folder.file("o", LOG.note(51))
    found = run("consistency", "--json", "--key", KEY, proof, "--old", old)
    assert (found.status, found.codes) == (1, {"consistency.size"})


def tampered(leaves: list[bytes]) -> bytes:
    """Return an archive that agrees with itself, of leaves that are not those of the log."""
    return AuditLog(leaves).archive()


@pytest.mark.parametrize(
    "leaves",
    [
        [
            *LEAVES[:40],
            LEAVES[40].replace(b"doc:reports/2026/q3", b"doc:reports/2026/q4"),
            *LEAVES[41:],
        ],
        [*LEAVES[:40], LEAVES[41], LEAVES[40], *LEAVES[42:]],
        [*LEAVES[:40], LEAVES[40][:-20] + b"\1" + LEAVES[40][-19:], *LEAVES[41:]],
    ],
    ids=["altered", "swapped", "one bit"],
)
def test_a_log_whose_leaves_were_changed_is_not_verified(
    folder: Folder, leaves: list[bytes]
) -> None:
    assert leaves != LEAVES
    found = folder.archive(tampered(leaves))
    assert found.status == 1
    assert "root.mismatch" in found.codes


def test_a_deleted_leaf_is_missing_in_its_writers_sequence(folder: Folder) -> None:
    found = folder.archive(tampered([*LEAVES[:40], *LEAVES[41:]]))
    assert (found.status, found.codes) == (1, {"archive.missing", "writer.gap"})


def test_a_deleted_leaf_is_missing_though_the_log_was_sealed_and_signed_without_it(
    folder: Folder,
) -> None:
    forged = AuditLog([*LEAVES[:40], *LEAVES[41:]])
    found = Folder(folder.file("x", "").parent, forged).archive(forged.archive())
    assert (found.status, found.codes) == (1, {"writer.gap"})
    [finding] = found.report["findings"]
    assert finding["message"].endswith("are missing")


def test_an_inserted_leaf_is_noticed(folder: Folder) -> None:
    found = folder.archive(tampered([*LEAVES[:40], LEAVES[39], *LEAVES[40:]]))
    assert (found.status, found.codes) == (1, {"archive.beyond", "writer.repeat"})


def test_a_range_in_no_archive_is_named(folder: Folder) -> None:
    found = folder.archive(LOG.archive((0, 40), (50, SIZE)))
    assert (found.status, found.codes) == (1, {"archive.missing"})
    assert found.report["findings"][0]["message"].startswith("leaves 40 to 49 are")


def test_a_range_in_two_archives_is_named(folder: Folder) -> None:
    found = folder.archive(LOG.archive((0, 60)), LOG.archive((50, SIZE)))
    assert (found.status, found.codes) == (1, {"archive.overlap", "archive.missing"})


def test_a_cover_cannot_stand_for_other_leaves(folder: Folder) -> None:
    forged = AuditLog([*LEAVES[:40], recorded(1, 999), *LEAVES[41:]])
    cover = folder.file("cover", forged.cover((32, 64)))
    found = folder.archive(LOG.archive((0, 32), (64, SIZE)), more=("--cover", cover))
    assert (found.status, found.codes) == (1, {"root.mismatch"})


def test_a_cover_that_hides_the_end_of_a_kept_checkpoint_is_named(folder: Folder) -> None:
    cover = folder.file("cover", LOG.cover((32, 64)))
    kept = folder.file("kept", LOG.note(50))
    more = ("--cover", cover, "--trusted", kept)
    found = folder.archive(LOG.archive((0, 32), (64, SIZE)), more=more)
    assert (found.status, found.codes) == (1, {"trusted.hidden"})


def test_leaves_of_another_log_are_named(folder: Folder) -> None:
    found = folder.archive(AuditLog(LEAVES, "licet.example/other").archive())
    assert (found.status, found.codes) == (1, {"archive.origin"})


@pytest.mark.parametrize(
    "packed",
    [
        LOG.archive()[:-20],
        LOG.archive()[:500],
        b"",
        b"no gzip",
        LOG.archive() + b"rest",
        repacked(LOG, lambda content: content[:-3]),
        repacked(LOG, lambda content: content + b"\n"),
        repacked(LOG, lambda content: content.replace(b"2026/q3", b"2026/q4", 1)),
        repacked(LOG, lambda content: content.replace(b"licet-archive@v1", b"licet-archive@v2")),
        repacked(LOG, lambda content: content.replace(b"\n0\n", b"\n00\n", 1)),
    ],
    ids=[
        "end cut",
        "most cut",
        "nothing",
        "no gzip",
        "tail",
        "leaf cut",
        "line more",
        "digest",
        "version",
        "number",
    ],
)
def test_a_damaged_archive_is_named(folder: Folder, packed: bytes) -> None:
    found = folder.archive(packed)
    assert found.status == 1
    assert found.codes & {"archive.damaged", "archive.missing"}


# --- The program ---------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_and_wrong_usage_have_their_own_status(folder: Folder) -> None:
    missing = run("checkpoint", "--key", KEY, folder.file("c", "").parent / "none")
    assert (missing.status, missing.stdout) == (3, "")
    assert missing.stderr.startswith("cannot read")
    assert run("checkpoint", "--key", KEY).status == 2
    assert run("checkpoint", folder.file("c", LOG.note())).status == 2


def test_what_is_no_key_verifies_nothing(folder: Folder) -> None:
    found = run("checkpoint", "--json", "--key", KEY[:-4], folder.file("c", LOG.note()))
    assert (found.status, found.codes) == (1, {"input.malformed"})


def test_a_forged_file_cannot_write_to_the_terminal(folder: Folder) -> None:
    log = AuditLog([recorded(5, 1).replace(b"allow", b"\x1b[2Ja")])
    archive = folder.file("a", log.archive())
    checkpoint = folder.file("c", log.note())
    found = run("archive", "--key", KEY, "--checkpoint", checkpoint, archive)
    assert found.status == 1
    assert "\x1b" not in found.stdout


def test_many_findings_are_counted_and_the_first_are_shown(folder: Folder) -> None:
    log = AuditLog([b"bad"] * 500)
    found = Folder(folder.file("x", "").parent, log).archive(log.archive())
    assert found.report["errors"] == 500
    assert len(found.report["findings"]) == 100
