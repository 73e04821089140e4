"""Lines of an import: strict JSON of bounded length, and lines of a reject file."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pytest

from licet.cli.errors import CommandError
from licet.cli.importing.lines import (
    MAX_LINE_BYTES,
    MAX_RECORD_BYTES,
    Line,
    MalformedError,
    line_at,
    lines,
    parse,
)
from licet.cli.importing.order import CYCLIC, by_level, levels
from licet.cli.importing.rejects import RejectFile
from licet.domain.errors import Violation

A = b'{"type": "audit"}'


def rule_of(raw: bytes) -> str:
    with pytest.raises(MalformedError) as raised:
        parse(Line(1, 0, raw))
    return raised.value.rule


def test_lines_are_numbered_and_found_again() -> None:
    file = BytesIO(b"\xef\xbb\xbf" + A + b"\r\n\n  \n" + A + b" \n[]\n{}")
    found = list(lines(file))
    assert [(line.number, line.raw) for line in found] == [(1, A), (4, A), (5, b"[]"), (6, b"{}")]
    for line in found:
        assert line_at(file, line.offset, line.number) == line


def test_a_line_that_is_too_long_is_passed_over() -> None:
    longest = b"[" + b" " * (MAX_LINE_BYTES - 2) + b"\n"
    too_long = b"[" + b" " * MAX_LINE_BYTES + b"]"
    found = list(lines(BytesIO(longest + too_long + b"\n" + A + b"\n" + too_long)))
    assert [line.is_whole for line in found] == [True, False, True, False]
    assert [line.number for line in found] == [1, 2, 3, 4]
    assert found[2].raw == A
    with pytest.raises(MalformedError, match="bytes"):
        parse(found[1])


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"{", "must be JSON"),
        (b'{"a": 1} x', "must be JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": "\xff"}', "must be UTF-8: byte 8 is not"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"b": {"a": 1, "a": 2}}', "the key 'a' is there twice"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested"),
        (b'{"a": ' + b"1" * 5000 + b"}", "must be JSON"),
        (b'{"a": "' + b"x" * MAX_RECORD_BYTES + b'"}', f"at most {MAX_RECORD_BYTES} bytes"),
        (b'{"record": {}, "x": 1}', "no line of a reject file: it has 'x'"),
        (b'{"record": []}', "`record` must be an object"),
        (b'{"text": 1}', "`record` must be an object"),
        (b'{"text": "[]"}', "must be a JSON object"),
        (b'{"record": {}, "references": []}', "`references` are not its own"),
        (b'{"record": {}, "references": {"token": {}}}', "`references` are not its own"),
        (b'{"record": {}, "references": {"user": []}}', "`references` are not its own"),
        (b'{"record": {}, "references": {"user": {"a": 1}}}', "`references` are not its own"),
    ],
    ids=range(20),
)
def test_what_is_no_record_says_why(raw: bytes, rule: str) -> None:
    assert rule in rule_of(raw)


def test_a_line_of_a_reject_file_is_its_record(tmp_path: Path) -> None:
    raw = b'{"b": 1.10, "a": "\xc3\xa4"}'
    with RejectFile(tmp_path / "r", is_chosen=False) as rejects:
        parsed = parse(Line(7, 0, raw))._replace(references={("user", "u-1"): "user:a"})
        rejects.record(7, [Violation("a", "is wrong")], parsed)
        rejects.text(8, "must be JSON", '{"b": ')
        assert rejects.path == tmp_path / "r"
    written = (tmp_path / "r").read_bytes()
    assert raw in written
    first, second = map(json.loads, written.splitlines())
    assert first["line"] == 7
    assert first["reasons"] == [{"field": "a", "rule": "is wrong"}]
    assert second == {
        "line": 8,
        "reasons": [{"field": "", "rule": "must be JSON"}],
        "text": '{"b": ',
    }
    found = [parse(line) for line in lines(BytesIO(written.replace(b'{\\"b\\": ', b"{}")))]
    assert [each.fields for each in found] == [{"b": 1.1, "a": "ä"}, {}]
    assert found[0].references == {("user", "u-1"): "user:a"}


def test_a_rejected_line_of_a_reject_file_can_be_mended_again() -> None:
    line = b'{"a": ' + b"\x01" * MAX_RECORD_BYTES
    with pytest.raises(MalformedError) as raised:
        parse(Line(1, 0, line))
    again = json.dumps({"line": 1, "reasons": [], "text": raised.value.text}).encode()
    assert len(again) < MAX_LINE_BYTES
    nested = json.dumps({"text": json.dumps({"text": '{"a": 1}'})}).encode()
    assert parse(Line(1, 0, nested)).fields == {"a": 1}


def test_no_reject_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("mine", encoding="ascii")
    with RejectFile(tmp_path / "r", is_chosen=False) as rejects:
        rejects.text(1, "x", "y")
        made = rejects.path
    assert made == tmp_path / "r.2"
    assert made.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "r").read_text(encoding="ascii") == "mine"
    chosen = RejectFile(tmp_path / "r", is_chosen=True)
    with pytest.raises(CommandError, match="there is such a file"):
        chosen.check()
    with pytest.raises(CommandError, match="cannot write"):
        chosen.text(1, "x", "y")
    nowhere = RejectFile(tmp_path / "no folder" / "r", is_chosen=False)
    with pytest.raises(CommandError, match="cannot write"):
        nowhere.text(1, "x", "y")


def test_capabilities_come_after_their_parents() -> None:
    names = {name: position for position, name in enumerate("abcdefgh")}
    # c -> b -> a;  d -> elsewhere;  e -> e;  f -> g -> f;  h -> f
    parents = {2: "b", 1: "a", 3: "elsewhere", 4: "e", 5: "g", 6: "f", 7: "f"}
    found = levels(8, parents, names)
    assert list(found) == [0, 1, 2, 0, CYCLIC, CYCLIC, CYCLIC, CYCLIC]
    assert list(by_level(found)) == [[4, 5, 6, 7], [0, 3], [1], [2]]


def test_a_long_chain_is_no_recursion() -> None:
    count = 20_000
    names = {str(n): n for n in range(count)}
    found = levels(count, {n: str(n + 1) for n in range(count - 1)}, names)
    assert list(found) == list(range(count - 1, -1, -1))
