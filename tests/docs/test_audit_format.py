"""The page on the audit format: what it shows is what the code has."""

from __future__ import annotations

import json
import re

from licet.domain.audit_event import COLUMNS
from tests.conformance.make_vectors import FOLDER, LOG_FOLDER
from tests.docs.blocks import ROOT, blocks_of, code_in, table_of, text_of
from tests.fakes.audit_log import AuditLog

PAGE = "docs/audit-format.md"
SOURCE = (ROOT / "tools" / "licet_audit_verifier.py").read_text(encoding="utf-8")


def shown() -> list[str]:
    return [block.text for block in blocks_of(PAGE, "text")]


def test_the_fields_of_a_leaf_are_in_the_table_in_their_order() -> None:
    rows = table_of(PAGE, "leaf field")
    assert tuple(name for row in rows for name in code_in(row[0])) == COLUMNS


def test_the_leaf_is_the_first_of_the_vectors() -> None:
    first = json.loads((FOLDER / "audit_leaf_v1.json").read_text(encoding="utf-8"))["vectors"][0]
    assert f"{first['leaf']}\n{first['leaf_hash']}\n" in shown()


def test_the_roots_are_those_of_the_tree() -> None:
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    leaves.append("606162636465666768696a6b6c6d6e6f")
    roots = {n: AuditLog(map(bytes.fromhex, leaves[:n])).root().hex() for n in (0, 2, 8)}
    assert "".join(f"{n} {root}\n" for n, root in roots.items()) in shown()


def test_the_key_and_the_checkpoint_are_those_of_the_small_log() -> None:
    for name in ("public.key", "checkpoint"):
        assert (LOG_FOLDER / name).read_text(encoding="utf-8") in shown()


def test_every_finding_of_the_verifier_is_in_the_table_and_nothing_else() -> None:
    found = set(re.findall(r'"((?!c2sp|www)[a-z]+\.[a-z]+)"', SOURCE))
    kinds = {code for code in found if not code.startswith("audit.")}
    kinds |= {f"{kind}.unverified" for kind in ("checkpoint", "old", "trusted")}
    rows = table_of(PAGE, "finding")
    assert {code for row in rows for code in code_in(row[0])} == kinds


def test_every_event_that_the_verifier_knows_is_in_the_table() -> None:
    rows = table_of(PAGE, "`event_type`")
    assert {code_in(row[0])[0] for row in rows} == set(re.findall(r'"(audit\.[a-z_]+)"', SOURCE))
    for row in rows:
        for name in code_in(row[2]):
            assert f'"{name}"' in SOURCE


def test_the_statuses_are_those_of_the_verifier() -> None:
    assert "VERIFIED, NOT_VERIFIED, UNREADABLE = 0, 1, 3" in SOURCE
    assert [row[0] for row in table_of(PAGE, "status")] == ["0", "1", "2", "3"]
    assert "nothing of licet" in SOURCE
    assert "shares no code with licet" in text_of(PAGE)
