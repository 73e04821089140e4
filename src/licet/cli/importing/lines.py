"""The lines of a file: strict JSON, of bounded length, in constant memory.

A line is a record, or a line of a reject file, which has the record in it:

    {"line": 17, "reasons": [...], "references": {...}, "record": {...}}
    {"line": 18, "reasons": [...], "text": "what was no JSON object"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

MAX_RECORD_BYTES: Final = 128 * 1024
MAX_LINE_BYTES: Final = 1024 * 1024
"""A line of a reject file may be longer than the record in it."""
_SKIPPED_BYTES: Final = 64 * 1024
_SHOWN_BYTES: Final = 1024
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_OF_REJECTS: Final = frozenset({"line", "reasons", "references", "record", "text"})
_HOLDERS: Final = frozenset({"user", "agent"})


class Line(NamedTuple):
    """A line that is not empty.

    Attributes:
        number: from 1 on.
        offset: of its first byte in the file.
        raw: its bytes without the end of the line; the first 1,024 of one that is too long.
        is_whole: it is not too long.
    """

    number: int
    offset: int
    raw: bytes
    is_whole: bool = True


class Parsed(NamedTuple):
    """A record as it was read.

    Attributes:
        fields: its JSON.
        text: the same as text, on one line.
        references: the principals of users and agents that were imported before: by type and id.
    """

    fields: Mapping[str, Any]
    text: str
    references: Mapping[tuple[str, str], str]


class MalformedError(Exception):
    """A line is no record; `rule` says why, `text` is what it holds."""

    def __init__(self, rule: str, text: str) -> None:
        """Keep them."""
        super().__init__(rule)
        self.rule = rule
        self.text = text


def lines(file: BinaryIO) -> Iterator[Line]:
    """Yield the lines of a file that are not empty, from its beginning."""
    offset = number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        start, is_whole = offset, len(raw) <= MAX_LINE_BYTES
        offset += len(raw)
        if not is_whole:
            last = raw
            while last and not last.endswith(b"\n"):
                last = file.readline(_SKIPPED_BYTES)
                offset += len(last)
        if number == 1 and raw.startswith(_BYTE_ORDER_MARK):
            raw, start = raw[len(_BYTE_ORDER_MARK) :], start + len(_BYTE_ORDER_MARK)
        raw = raw.strip(b" \t\r\n")
        if raw:
            yield Line(number, start, raw if is_whole else raw[:_SHOWN_BYTES], is_whole)


def line_at(file: BinaryIO, offset: int, number: int) -> Line:
    """Return the line at an offset again."""
    file.seek(offset)
    return Line(number, offset, file.readline(MAX_LINE_BYTES + 1).strip(b" \t\r\n"))


def parse(line: Line) -> Parsed:
    """Return the record of a line.

    Raises:
        MalformedError: it is none.
    """
    text = line.raw.decode(errors="backslashreplace")
    if not line.is_whole:
        raise MalformedError(f"must have at most {MAX_RECORD_BYTES} bytes", text)
    try:
        line.raw.decode()
    except UnicodeDecodeError as exc:
        raise MalformedError(f"must be UTF-8: byte {exc.start + 1} is not", text) from None
    return _parsed(text)


def _parsed(text: str) -> Parsed:
    found = _object(text)
    if "record" not in found and "text" not in found:
        if len(text.encode(errors="surrogatepass")) > MAX_RECORD_BYTES:
            raise MalformedError(f"must have at most {MAX_RECORD_BYTES} bytes", text)
        return Parsed(found, text, {})
    if unknown := sorted(found.keys() - _OF_REJECTS):
        raise MalformedError(f"is no line of a reject file: it has {unknown[0][:64]!r}", text)
    references = _references(found.get("references", {}), text)
    match found:
        case {"record": dict() as record}:
            inner = Parsed(record, json.dumps(record), {})
            if len(inner.text) > MAX_LINE_BYTES:
                raise MalformedError(f"must have at most {MAX_RECORD_BYTES} bytes", text)
        case {"text": str() as mended}:
            inner = _parsed(mended)
        case _:
            raise MalformedError("is no line of a reject file: `record` must be an object", text)
    return inner._replace(references={**references, **inner.references})


def _references(value: object, text: str) -> dict[tuple[str, str], str]:
    """Check what a reject file says of users and agents: `{"user": {"u-1": "user:ada"}}`."""
    if isinstance(value, dict) and value.keys() <= _HOLDERS:
        groups = [(kind, group) for kind, group in value.items() if isinstance(group, dict)]
        found = {(kind, key): name for kind, group in groups for key, name in group.items()}
        if len(groups) == len(value) and all(isinstance(name, str) for name in found.values()):
            return found
    raise MalformedError("is no line of a reject file: `references` are not its own", text)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except json.JSONDecodeError as exc:
        raise MalformedError(f"must be JSON: {exc.msg} at column {exc.colno}", text) from None
    except RecursionError:
        raise MalformedError("must be JSON that is not nested so deeply", text) from None
    except ValueError as exc:
        raise MalformedError(f"must be JSON: {exc}", text) from None
    if not isinstance(found, dict):
        raise MalformedError("must be a JSON object", text)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            message = f"the key {name[:64]!r} is there twice"
            raise ValueError(message)
        found[name] = value
    return found


def _refuse(constant: str) -> NoReturn:
    message = f"{constant} is no number of JSON"
    raise ValueError(message)
