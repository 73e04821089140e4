"""Verifies the audit log of a licet that is not trusted.

One file, to be read before it is believed: it needs Python 3.11, the package `cryptography`, and
nothing of licet. The formats are described in docs/audit-format.md; this is a second implementation
of them, and shares no code with the first.

    python licet_audit_verifier.py checkpoint  --key KEY CHECKPOINT
    python licet_audit_verifier.py inclusion   --key KEY PROOF [--leaf FILE]
    python licet_audit_verifier.py consistency --key KEY PROOF --old CHECKPOINT
    python licet_audit_verifier.py archive     --key KEY --checkpoint CHECKPOINT ARCHIVE...

KEY is the log's public key, `name+id+base64`. Take it from where the log's operator cannot change
it: with a key from the log itself everything verifies.

Exit status: 0 all is verified, 1 something is not (each finding says what), 2 wrong usage, 3 a file
cannot be read. Memory does not grow with the size of an archive.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import gzip
import hashlib
import json
import re
import struct
import sys
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERIFIED, NOT_VERIFIED, UNREADABLE = 0, 1, 3
SHOWN_FINDINGS: Final = 100
MAX_TEXT_BYTES: Final = 1 << 20
HASH: Final = 32
EMPTY_ROOT: Final = hashlib.sha256().digest()


class FormatError(Exception):
    """Some input breaks a rule of its format."""


# --- The report ----------------------------------------------------------------------------------


@dataclass
class Report:
    """What was found.

    Attributes:
        strict: a warning is as bad as an error.
        findings: the first of each, as they are printed.
        counts: how many there were of each severity.
        facts: what was established, valid only if there is no error.
    """

    strict: bool = False
    findings: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    facts: dict[str, Any] = field(default_factory=dict)

    def error(self, code: str, message: str, leaf: int | None = None) -> None:
        """Add something that is not as it has to be."""
        self._add("error", code, message, leaf)

    def warning(self, code: str, message: str, leaf: int | None = None) -> None:
        """Add something that may have an innocent cause."""
        self._add("warning", code, message, leaf)

    @property
    def verified(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.counts["error"] and not (self.strict and self.counts["warning"])

    def _add(self, severity: str, code: str, message: str, leaf: int | None) -> None:
        self.counts[severity] += 1
        # Warnings leave room for errors.
        if self.counts[severity] <= SHOWN_FINDINGS:
            finding: dict[str, Any] = {"severity": severity, "code": code, "message": message}
            if leaf is not None:
                finding["leaf"] = leaf
            self.findings.append(finding)

    def print(self, *, as_json: bool) -> None:
        """Print it, for programs or for people."""
        if as_json:
            whole = {
                "verified": self.verified,
                "errors": self.counts["error"],
                "warnings": self.counts["warning"],
                "findings": self.findings,
                **self.facts,
            }
            print(json.dumps(whole, indent=2))
            return
        for finding in self.findings:
            where = f" (leaf {finding['leaf']})" if "leaf" in finding else ""
            # What a tampered file says must not be able to write to the terminal.
            message = finding["message"].encode("unicode_escape").decode("ascii")
            print(f"{finding['severity'].upper()} {finding['code']}{where}: {message}")
        for name, value in self.facts.items():
            print(f"{name}: {value if isinstance(value, int) else json.dumps(value)}")
        total = f"{self.counts['error']} errors, {self.counts['warning']} warnings"
        print(f"{'VERIFIED' if self.verified else 'NOT VERIFIED'}: {total}")


# --- Signed notes, checkpoints and proofs --------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A public key under a name."""

    name: str
    identifier: bytes
    public: bytes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose signature was verified."""

    origin: str
    size: int
    root: bytes

    def facts(self) -> dict[str, Any]:
        """Return it as it is reported."""
        root = base64.b64encode(self.root).decode()
        return {"origin": self.origin, "size": self.size, "root": root}


def unbase64(text: str) -> bytes:
    """Read base64 in its one canonical spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise FormatError("not canonical base64")
    return data


def hash_in(text: str) -> bytes:
    """Read a hash in base64."""
    value = unbase64(text)
    if len(value) != HASH:
        raise FormatError(f"a hash of {len(value)} bytes")
    return value


def decimal(text: str) -> int:
    """Read a number below 2 ** 63 in its one canonical spelling."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII) or int(text) >= 1 << 63:
        raise FormatError(f"not a decimal number: {text[:40]!r}")
    return int(text)


def read_key(text: str) -> Key:
    """Read `name+id+base64` of an Ed25519 key."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004 - name, id, key
        raise FormatError("a key is name+id+base64")
    name, identifier, encoded = parts
    data = unbase64(encoded)
    if len(data) != 1 + HASH or data[0] != 1 or not name:
        raise FormatError("not an Ed25519 key")
    expected = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    if expected.hex() != identifier:
        raise FormatError("the key's id does not belong to it")
    return Key(name, expected, data[1:])


def open_checkpoint(note: str, key: Key) -> Checkpoint:
    """Verify the signature of a checkpoint, and only then read it."""
    if any(character < " " and character != "\n" for character in note):
        raise FormatError("a control character in a note")
    body, blank, signatures = note.rpartition("\n\n")
    body += "\n"
    if not blank or not signatures.endswith("\n"):
        raise FormatError("not a signed note: text, an empty line, signatures")
    # All of them: a forged signature is an error, wherever the valid one stands.
    by_key = [is_signed(line, body, key) for line in signatures[:-1].split("\n")]
    if not any(by_key):
        raise FormatError(f"no signature by the key {key.name}+{key.identifier.hex()}")
    lines = body[:-1].split("\n")
    if len(lines) < 3 or "" in lines:  # noqa: PLR2004 - origin, size, root
        raise FormatError("not a checkpoint: origin, size and root")
    if lines[0] != key.name:
        raise FormatError(f"the checkpoint is of {lines[0]!r}, the key of {key.name!r}")
    size, root = decimal(lines[1]), hash_in(lines[2])
    if size == 0 and root != EMPTY_ROOT:
        raise FormatError("an empty log with another root than the empty one")
    return Checkpoint(lines[0], size, root)


def is_signed(line: str, body: str, key: Key) -> bool:
    """Tell whether this line is a signature by the key; a forged one is an error."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "\u2014":  # noqa: PLR2004 - dash, name, signature
        raise FormatError("not a line of a signature")
    data = unbase64(parts[2])
    if parts[1] != key.name or data[:4] != key.identifier:
        return False  # a witness, or an older key: nothing that we were asked about
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(data[4:], body.encode())
    except InvalidSignature:
        raise FormatError(f"the signature of {key.name} is forged") from None
    return True


@dataclass(frozen=True)
class Proof:
    """A proof as text: what is claimed, hashes, and a signed checkpoint."""

    number: int
    hashes: list[bytes]
    note: str
    extra: bytes | None


def read_proof(text: str, *, inclusion: bool) -> Proof:
    """Read `c2sp.org/tlog-proof@v1`, or the consistency proof that a witness is sent."""
    head, blank, note = text.partition("\n\n")
    lines = head.split("\n")
    extra = None
    if inclusion:
        if lines.pop(0) != "c2sp.org/tlog-proof@v1":
            raise FormatError("does not begin with c2sp.org/tlog-proof@v1")
        if lines and lines[0].startswith("extra "):
            extra = unbase64(lines.pop(0)[6:])
    word = "index " if inclusion else "old "
    if not blank or not lines or not lines[0].startswith(word):
        raise FormatError(f"no line with {word.strip()!r}, or no checkpoint")
    return Proof(decimal(lines[0][len(word) :]), [hash_in(h) for h in lines[1:]], note, extra)


# --- The tree (RFC 9162, section 2.1) ------------------------------------------------------------


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an interior node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_by_inclusion(value: bytes, index: int, size: int, proof: list[bytes]) -> bytes | None:
    """Return the root that a proof leads to; None if it has not the length that it must have."""
    hashes = iter(proof)
    if not 0 <= index < size:
        return None
    last = size - 1
    while last:
        # A node without a right sibling is its own parent.
        if index & 1 or index != last:
            sibling = next(hashes, None)
            if sibling is None:
                return None
            value = node_hash(sibling, value) if index & 1 else node_hash(value, sibling)
        index >>= 1
        last >>= 1
    return value if next(hashes, None) is None else None


def roots_by_consistency(
    old_size: int, size: int, old_root: bytes, proof: list[bytes]
) -> tuple[bytes, bytes] | None:
    """Return old and new root that a proof leads to; None if it has not the right length."""
    if not 0 < old_size < size:
        return None
    node, last = old_size - 1, size - 1
    while node & 1:
        node >>= 1
        last >>= 1
    hashes = iter(proof if node else [old_root, *proof])
    first = next(hashes, None)
    if first is None:
        return None
    old = new = first
    while last:
        if node & 1 or node != last:
            sibling = next(hashes, None)
            if sibling is None:
                return None
            if node & 1:
                old = node_hash(sibling, old)
                new = node_hash(sibling, new)
            else:
                new = node_hash(new, sibling)
        node >>= 1
        last >>= 1
    return (old, new) if next(hashes, None) is None else None


class Tree:
    """A tree that grows by leaves, or by whole subtrees of which only the hash is known."""

    def __init__(self) -> None:
        self.size = 0
        self._stack: list[tuple[int, bytes]] = []

    def add(self, value: bytes, height: int = 0) -> None:
        """Add a subtree of 2 ** height leaves; the size is a multiple of that."""
        self.size += 1 << height
        while self._stack and self._stack[-1][0] == height:
            value = node_hash(self._stack.pop()[1], value)
            height += 1
        self._stack.append((height, value))

    def root(self) -> bytes:
        """Return the root hash."""
        if not self._stack:
            return EMPTY_ROOT
        value = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            value = node_hash(left, value)
        return value


# --- Leaves --------------------------------------------------------------------------------------

TEXTS: Final = (
    *("event_type", "actor", "principal", "action", "resource", "capability_id", "result"),
    *("reason", "policy_id", "session_id", "trace_id"),
)
FIELDS: Final = ("v", "event_id", "occurred_at", *TEXTS, "revision", "metadata")
RESULTS: Final = {"allow", "deny", "done", "refused"}
MICROSECONDS_1970_TO_2000: Final = 946_684_800_000_000
LAST_MICROSECOND: Final = 253_402_300_799_999_999
DEEPEST: Final = 64
ESCAPES: Final = {
    **{chr(code): f"\\u{code:04x}" for code in range(1, 0x20)},
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    '"': '\\"',
    "\\": "\\\\",
}
ESCAPED: Final = re.compile(r'[\x01-\x1f"\\]')


def decode_leaf(leaf: bytes) -> dict[str, Any]:
    """Take a leaf of version 1 apart, and refuse all that version 1 does not allow."""
    fields = split_leaf(leaf)
    if fields["v"] != b"\x00\x01":
        raise FormatError(f"version {fields['v'].hex()}, not 1")
    event: dict[str, Any] = {"event_id": event_id(fields["event_id"])}
    event["occurred_at"] = integer(fields, "occurred_at") + MICROSECONDS_1970_TO_2000
    if not 0 <= event["occurred_at"] <= LAST_MICROSECOND:
        raise FormatError("occurred_at is not within 1970 to 9999")
    for name in TEXTS:
        event[name] = text_of(fields[name], name)
    if not event["event_type"]:
        raise FormatError("no event_type")
    if event["result"] not in RESULTS:
        raise FormatError(f"result {event['result']!r}")
    event["revision"] = integer(fields, "revision")
    event["metadata"] = metadata_of(fields["metadata"])
    return event


def split_leaf(leaf: bytes) -> dict[str, bytes]:
    """Return the bytes of each field."""
    fields = {}
    at = 2
    if leaf[:2] != struct.pack(">h", len(FIELDS)):
        raise FormatError(f"not a tuple of {len(FIELDS)} fields")
    for name in FIELDS:
        length = int.from_bytes(leaf[at : at + 4], "big", signed=True)
        if length < 0 or at + 4 + length > len(leaf):
            raise FormatError(f"{name} has a length of {length}")
        fields[name] = leaf[at + 4 : at + 4 + length]
        at += 4 + length
    if at != len(leaf):
        raise FormatError("bytes behind the last field")
    return fields


def integer(fields: dict[str, bytes], name: str) -> int:
    """Read a field of eight bytes."""
    if len(fields[name]) != 8:  # noqa: PLR2004 - an int64
        raise FormatError(f"{name} has {len(fields[name])} bytes")
    return int.from_bytes(fields[name], "big", signed=True)


def event_id(data: bytes) -> tuple[int, int]:
    """Read an event's id: the writer and its sequence."""
    bits = int.from_bytes(data, "big")
    # Between them: version 8, twelve zero bits, variant 10.
    if len(data) != 16 or (bits >> 62) & 0x3FFFF != (0x8 << 14) | 0b10:  # noqa: PLR2004 - a UUID
        raise FormatError(f"event_id {data.hex()} is not a writer's UUID of version 8")
    return bits >> 80, bits & ((1 << 62) - 1)


def text_of(data: bytes, name: str) -> str:
    """Read UTF-8 without U+0000."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{name} is not UTF-8") from None
    if "\0" in text:
        raise FormatError(f"{name} holds U+0000")
    return text


class Number(str):
    """A number of a JSON text, as it is written."""

    __slots__ = ()


def metadata_of(data: bytes) -> dict[str, Any]:
    """Read metadata, and refuse another spelling than the one that PostgreSQL gives for a jsonb."""
    if data[:1] != b"\x01":
        raise FormatError("metadata does not begin with 01")
    text = text_of(data[1:], "metadata")
    try:
        value = JSON.decode(text)
    except (ValueError, RecursionError):
        raise FormatError("metadata is not JSON") from None
    if not isinstance(value, dict) or canonical(value, 0) != text:
        raise FormatError("metadata is not the canonical text of an object")
    return value


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and infinities."""
    raise ValueError(name)


JSON: Final = json.JSONDecoder(
    object_pairs_hook=members, parse_int=Number, parse_float=Number, parse_constant=no_constant
)


def canonical(value: Any, depth: int) -> str:  # noqa: ANN401 - whatever JSON holds
    """Return the canonical text of a value."""
    if depth > DEEPEST:
        raise FormatError("metadata is nested too deeply")
    if isinstance(value, Number):
        return number(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(canonical(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict):
        ordered = sorted(value, key=lambda key: (len(utf8(key)), utf8(key)))
        return (
            "{"
            + ", ".join(f"{quoted(key)}: {canonical(value[key], depth + 1)}" for key in ordered)
            + "}"
        )
    return {None: "null", True: "true", False: "false"}[value]


def utf8(text: str) -> bytes:
    """Return the bytes of a text, a lone surrogate's too: it is refused elsewhere."""
    return text.encode("utf-8", "surrogatepass")


def quoted(text: str) -> str:
    """Return a string as JSON, non-ASCII as it is."""
    if "\0" in text:
        raise FormatError("metadata holds U+0000")
    return '"' + ESCAPED.sub(lambda found: ESCAPES[found[0]], text) + '"'


def number(text: str) -> str:
    """Return a number if it is written plainly: no exponent, no negative zero."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", text, re.ASCII):
        raise FormatError(f"metadata holds a number written as {text[:40]!r}")
    if text[0] == "-" and not text.strip("-0."):
        raise FormatError("metadata holds a negative zero")
    return text


# --- What the events of a log say about its completeness -----------------------------------------


@dataclass
class Writer:
    """What was seen of a writer.

    Attributes:
        last: the sequence of its last event.
        stretch: in which stretch of leaves without a cover that was.
        closed: whether it said that this was its last.
    """

    last: int
    stretch: int
    closed: bool = False


class Sequences:
    """The rules of writers: each event once, in order, none left out.

    Writer 0 takes its numbers from transactions, also from those that are rolled back, and they
    commit in any order: its numbers may only not come twice.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._writers: dict[int, Writer] = {}
        self._stretch = 0
        self._zero = Ranges()
        # What is missing, and by which leaf it was noticed; what the log itself says of it.
        self._missing: list[tuple[int, int, int, int]] = []
        self._explained: list[tuple[int, int, int]] = []
        self._reach: dict[int, int] = {}

    def cover(self) -> None:
        """Note that leaves follow which nobody shows."""
        self._stretch += 1

    def take(self, index: int, event: dict[str, Any]) -> None:
        """Take the next event."""
        writer_id, sequence = event["event_id"]
        kind, metadata = event["event_type"], event["metadata"]
        if index == 0 and kind == "audit.epoch":
            self._continue(metadata)
        if writer_id == 0:
            if not self._zero.add(sequence):
                self._report.error("writer.repeat", f"event {sequence} of writer 0 again", index)
        else:
            self._step(index, writer_id, sequence, kind)
        if kind == "audit.quarantined":
            writer, refused = numbers(metadata, "writer_id", "sequence")
            self._explained.append((writer, refused, refused))
        if kind == "audit.incident" and event["reason"] == "EVENTS_LOST":
            writer, lost, end = numbers(metadata, "writer_id", "first", "last")
            self._explained.append((writer, lost, end))
        if kind == "audit.writer_recovered":
            writer, reach = numbers(metadata, "writer_id", "last_sequence")
            self._reach[writer] = max(reach, self._reach.get(writer, 0))

    def finish(self) -> None:
        """Report what is missing, now that all is known that could explain it."""
        self._explained.sort()
        for writer_id, first, last, index in self._missing:
            if not self._is_explained(writer_id, first, last):
                text = f"writer {writer_id}: events {first} to {last} are missing"
                self._report.error("writer.gap", text, index)
        for writer_id, reach in self._reach.items():
            found = self._writers.get(writer_id)
            if (found is None or found.last < reach) and not self._stretch:
                text = f"writer {writer_id} ended with event {reach}, and the log does not have it"
                self._report.error("writer.tail", text)

    def _is_explained(self, writer_id: int, first: int, last: int) -> bool:
        for writer, begin, end in self._explained:
            if writer == writer_id and begin <= first <= end:
                first = end + 1
        return first > last

    def facts(self) -> dict[str, Any]:
        """Return what is reported of them."""
        still = sum(not writer.closed for writer in self._writers.values())
        return {"writers": len(self._writers), "writers_not_closed": still}

    def _continue(self, metadata: dict[str, Any]) -> None:
        """Begin where the log's former epoch ended."""
        writers = metadata.get("writers", {})
        for name in writers if isinstance(writers, dict) else ():
            (last,) = numbers(writers, name)
            if name.isdecimal():
                self._writers[int(name)] = Writer(last, 0)

    def _step(self, index: int, writer_id: int, sequence: int, kind: str) -> None:
        writer = self._writers.setdefault(writer_id, Writer(0, 0))
        expected = writer.last + 1
        text = f"writer {writer_id}: event {sequence} where {expected} was expected"
        if sequence < expected:
            self._report.error("writer.repeat", text, index)
            return
        if sequence > expected and writer.stretch == self._stretch:
            self._missing.append((writer_id, expected, sequence - 1, index))
        if writer.closed:
            self._report.error("writer.closed", f"writer {writer_id} had closed", index)
        if kind == "audit.writer_opened" and sequence != 1:
            self._report.error("writer.opened", f"writer {writer_id} opens twice", index)
        writer.last, writer.stretch = sequence, self._stretch
        writer.closed = kind == "audit.writer_closed"


class Ranges:
    """A set of numbers, nearly all of them in a few runs."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # of the run with the same position, inclusive

    def add(self, value: int) -> bool:
        """Add a number; False if it is in already."""
        at = bisect_right(self._starts, value)
        if at and value <= self._ends[at - 1]:
            return False
        before = at > 0 and self._ends[at - 1] == value - 1
        after = at < len(self._starts) and self._starts[at] == value + 1
        if before and after:
            self._ends[at - 1] = self._ends.pop(at)
            del self._starts[at]
        elif before:
            self._ends[at - 1] = value
        elif after:
            self._starts[at] = value
        else:
            self._starts.insert(at, value)
            self._ends.insert(at, value)
        return True


def numbers(metadata: dict[str, Any], *names: str) -> tuple[int, ...]:
    """Return integers of metadata; -1 for what is none."""
    found = [metadata.get(name) for name in names]
    return tuple(
        int(value) if isinstance(value, Number) and value.isdecimal() else -1 for value in found
    )


class Times:
    """The bounds that heartbeats put on when an event can have happened.

    The order of a log is that of its leaves. A clock that was set, or a spool that waited for the
    database, breaks these bounds too: they are warnings.
    """

    def __init__(self, report: Report, max_lag: float) -> None:
        self._report = report
        self._lag = int(max_lag * 1_000_000)
        self._heartbeat: int | None = None
        self._newest: tuple[int, int] | None = None
        self.heartbeats = 0

    def take(self, index: int, event: dict[str, Any]) -> None:
        """Take the next event."""
        at, kind = event["occurred_at"], event["event_type"]
        if kind == "audit.clock_step":
            self._heartbeat = self._newest = None
        elif kind == "audit.heartbeat":
            self._beat(index, at)
        else:
            if self._heartbeat is not None and at < self._heartbeat - self._lag:
                text = f"{rfc3339(at)}, but behind a heartbeat of {rfc3339(self._heartbeat)}"
                self._report.warning("time.late", text, index)
            if self._newest is None or at > self._newest[0]:
                self._newest = at, index

    def _beat(self, index: int, at: int) -> None:
        self.heartbeats += 1
        if self._heartbeat is not None and at < self._heartbeat:
            text = f"a heartbeat of {rfc3339(at)} behind one of {rfc3339(self._heartbeat)}"
            self._report.warning("time.heartbeat", text, index)
        if self._newest is not None and self._newest[0] > at + self._lag:
            text = f"{rfc3339(self._newest[0])}, but before a heartbeat of {rfc3339(at)}"
            self._report.warning("time.early", text, self._newest[1])
        self._heartbeat, self._newest = at, None


def rfc3339(microseconds: int) -> str:
    """Return an instant as text."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds")


# --- Archives ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What stands next in a file.

    Attributes:
        first: the index of its first leaf.
        count: how many leaves it stands for.
        origin: of the log; empty for a hash.
        digest: over the leaf hashes; the hash itself if the leaves are not shown.
    """

    first: int
    count: int
    origin: str
    digest: bytes


class ArchiveFile:
    """An archive, read from front to back."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - open as long as the program runs

    def next(self) -> Part | None:
        """Return the header of the next segment; None at the end."""
        first = self._line()
        if not first:
            return None
        lines = [first] + [self._line() for _ in range(5)]
        whole = all(line.endswith(b"\n") for line in lines)
        if first != b"licet-archive@v1\n" or lines.pop() != b"\n" or not whole:
            raise FormatError("a segment does not begin with its header")
        try:
            origin, start, count, digest = [line[:-1].decode() for line in lines[1:]]
        except UnicodeDecodeError:
            raise FormatError("a header is not UTF-8") from None
        part = Part(decimal(start), decimal(count), origin, hash_in(digest))
        if not part.count:
            raise FormatError("an empty segment")
        return part

    def leaves(self, part: Part) -> Iterator[bytes]:
        """Yield the leaves of the segment whose header was read."""
        digest = hashlib.sha256()
        for _ in range(part.count):
            leaf = self._read(int.from_bytes(self._read(2), "big"))
            digest.update(leaf_hash(leaf))
            yield leaf
        if digest.digest() != part.digest:
            raise FormatError(f"leaves {part.first} on are not those that the header announces")

    def _read(self, count: int) -> bytes:
        data = self._guarded(self._file.read, count)
        if len(data) != count:
            raise FormatError("the file ends within a segment")
        return data

    def _line(self) -> bytes:
        return self._guarded(self._file.readline, 2048)

    @staticmethod
    def _guarded(read: Any, count: int) -> bytes:  # noqa: ANN401 - a method of the file
        try:
            data: bytes = read(count)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FormatError(f"the file is damaged: {error}") from None
        return data


class CoverFile:
    """The hashes of subtrees whose leaves nobody shows, read from front to back."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file: BinaryIO = path.open("rb")
        self._begun = False

    def next(self) -> Part | None:
        """Return the next subtree; None at the end."""
        if not self._begun and self._file.readline(100) != b"licet-cover@v1\n":
            raise FormatError("does not begin with licet-cover@v1")
        self._begun = True
        line = self._file.readline(200)
        if not line:
            return None
        try:
            first, height, digest = line.decode("ascii").removesuffix("\n").split(" ")
        except ValueError:
            raise FormatError("a line of a cover is first leaf, height and hash") from None
        part = Part(decimal(first), 1 << min(decimal(height), 63), "", hash_in(digest))
        if part.first % part.count:
            raise FormatError(f"no complete subtree of {part.count} leaves begins at {part.first}")
        return part

    def leaves(self, part: Part) -> Iterator[bytes]:
        """Yield nothing: this is what is not shown."""
        del part
        yield from ()


class Source:
    """A file, and what stands next in it."""

    def __init__(self, file: ArchiveFile | CoverFile, report: Report) -> None:
        self.file = file
        self._report = report
        self.part: Part | None = None
        self.advance()

    def advance(self) -> None:
        """Look at the next part; a file that is damaged has none."""
        try:
            self.part = self.file.next()
        except FormatError as error:
            self.fail(error)

    def fail(self, error: FormatError, code: str = "archive.damaged") -> None:
        """Report an error, and take nothing more from this file."""
        self._report.error(code, f"{self.file.name}: {error}")
        self.part = None


class Audit:
    """The verification of a whole log against a checkpoint."""

    def __init__(
        self, report: Report, checkpoint: Checkpoint, trusted: Checkpoint | None, max_lag: float
    ) -> None:
        self._report = report
        self._checkpoint = checkpoint
        self._trusted = trusted
        self._tree = Tree()
        self._complete = True
        self._sequences = Sequences(report)
        self._times = Times(report, max_lag)
        self._kinds: Counter[str] = Counter()
        self._hidden = 0
        self._trusted_root: bytes | None = None
        if trusted is not None and trusted.size == 0:
            self._trusted_root = EMPTY_ROOT

    def run(self, sources: list[Source]) -> None:
        """Take all parts in the order of their leaves."""
        at = 0
        while waiting := [source for source in sources if source.part is not None]:
            source = min(waiting, key=lambda s: s.part.first if s.part else 0)
            part = source.part
            if part is None:
                break
            if part.first < at:
                self._overlap(part, source)
                continue
            if part.first > at:
                self._missing(at, part.first)
            at = part.first + part.count
            self._part(source, part)
        if at < self._checkpoint.size:
            self._missing(at, self._checkpoint.size)
        self._finish()

    def _overlap(self, part: Part, source: Source) -> None:
        self._complete = False
        text = f"leaves {part.first} on were already read from another place"
        source.fail(FormatError(text), "archive.overlap")

    def _missing(self, first: int, end: int) -> None:
        self._complete = False
        self._sequences.cover()
        text = f"leaves {first} to {end - 1} are in no archive and in no cover"
        self._report.error("archive.missing", text, first)

    def _part(self, source: Source, part: Part) -> None:
        if part.first + part.count > self._checkpoint.size:
            self._complete = False
            text = f"{source.file.name}: leaves from {self._checkpoint.size} on are not proved"
            self._report.error("archive.beyond", text, self._checkpoint.size)
        if isinstance(source.file, CoverFile):
            self._hidden += part.count
            self._sequences.cover()
            self._grow(part.digest, part.count.bit_length() - 1)
        else:
            if part.origin != self._checkpoint.origin:
                text = f"{source.file.name}: leaves of {part.origin!r}"
                self._report.error("archive.origin", text, part.first)
            try:
                for index, leaf in enumerate(source.file.leaves(part), part.first):
                    self._leaf(index, leaf)
            except FormatError as error:
                self._complete = False
                self._sequences.cover()
                source.fail(error)
                return
        source.advance()

    def _leaf(self, index: int, leaf: bytes) -> None:
        self._grow(leaf_hash(leaf), 0)
        try:
            event = decode_leaf(leaf)
        except FormatError as error:
            self._report.error("leaf.format", str(error), index)
            return
        self._kinds[event["event_type"]] += 1
        self._sequences.take(index, event)
        self._times.take(index, event)

    def _grow(self, value: bytes, height: int) -> None:
        if not self._complete:
            return
        self._tree.add(value, height)
        if self._trusted is not None and self._tree.size == self._trusted.size:
            self._trusted_root = self._tree.root()

    def _finish(self) -> None:
        self._sequences.finish()
        if self._complete and self._tree.root() != self._checkpoint.root:
            text = "the leaves are not those that the checkpoint was signed for"
            self._report.error("root.mismatch", text)
        self._compare()
        self._report.facts.update(
            leaves=sum(self._kinds.values()),
            leaves_by_hash_only=self._hidden,
            heartbeats=self._times.heartbeats,
            **self._sequences.facts(),
            event_types=dict(sorted(self._kinds.items())),
        )

    def _compare(self) -> None:
        if self._trusted is None:
            return
        if self._trusted.size > self._checkpoint.size:
            text = f"the log had {self._trusted.size} leaves, and now {self._checkpoint.size}"
            self._report.error("trusted.rollback", text)
        elif not self._complete:
            return
        elif self._trusted_root is None:
            text = "a cover hides the end of the trusted checkpoint: take a consistency proof"
            self._report.error("trusted.hidden", text)
        elif self._trusted_root != self._trusted.root:
            text = f"the first {self._trusted.size} leaves were others"
            self._report.error("trusted.fork", text)


# --- Commands ------------------------------------------------------------------------------------


def read_text(path: str) -> str:
    """Read a small file of text, from the standard input for `-`."""
    if path == "-":
        data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    else:
        with Path(path).open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        raise FormatError(f"{path} has more than a megabyte")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{path} is not UTF-8") from None


def checkpoint_in(
    note: str, key: Key, report: Report, code: str = "checkpoint"
) -> Checkpoint | None:
    """Return the verified checkpoint of a note, or report why there is none."""
    try:
        return open_checkpoint(note, key)
    except FormatError as error:
        report.error(f"{code}.unverified", str(error))
        return None


def check_checkpoint(arguments: argparse.Namespace, key: Key, report: Report) -> None:
    """Verify the signature of a checkpoint."""
    checkpoint = checkpoint_in(read_text(arguments.file), key, report)
    if checkpoint:
        report.facts.update(checkpoint=checkpoint.facts())


def leaf_in(archive: ArchiveFile, index: int) -> bytes | None:
    """Return the leaf with this index, or None when the archive does not hold it."""
    found = None
    while part := archive.next():
        for at, leaf in enumerate(archive.leaves(part), part.first):
            if at == index:
                found = leaf
    return found


def check_inclusion(arguments: argparse.Namespace, key: Key, report: Report) -> None:
    """Verify that a leaf is in the log, and show the event that it is."""
    proof = read_proof(read_text(arguments.file), inclusion=True)
    checkpoint = checkpoint_in(proof.note, key, report)
    leaf = Path(arguments.leaf).read_bytes() if arguments.leaf else proof.extra
    if arguments.archive:
        leaf = leaf_in(ArchiveFile(Path(arguments.archive)), proof.number)
        if leaf is None:
            report.error("inclusion.leaf", f"the archive does not hold leaf {proof.number}")
            return
    if leaf is None:
        text = "the proof does not carry the leaf: give it with --leaf or --archive"
        report.error("inclusion.leaf", text)
        return
    if checkpoint is None:
        return
    root = root_by_inclusion(leaf_hash(leaf), proof.number, checkpoint.size, proof.hashes)
    if root != checkpoint.root:
        report.error("inclusion.failed", f"this is not leaf {proof.number} of the checkpoint's log")
        return
    report.facts.update(checkpoint=checkpoint.facts(), index=proof.number)
    try:
        event = decode_leaf(leaf)
    except FormatError as error:
        report.error("leaf.format", str(error), proof.number)
        return
    writer, sequence = event["event_id"]
    event.update(
        event_id=str(UUID(int=writer << 80 | 0x8 << 76 | 0b10 << 62 | sequence)),
        occurred_at=rfc3339(event["occurred_at"]),
    )
    report.facts.update(event=event)


def check_consistency(arguments: argparse.Namespace, key: Key, report: Report) -> None:
    """Verify that the log of one checkpoint grew into that of another."""
    proof = read_proof(read_text(arguments.file), inclusion=False)
    new = checkpoint_in(proof.note, key, report)
    old = checkpoint_in(read_text(arguments.old), key, report, "old")
    if old is None or new is None:
        return
    report.facts.update(old=old.facts(), checkpoint=new.facts())
    if proof.number != old.size:
        text = f"the proof is from size {proof.number}, the old checkpoint of {old.size}"
        report.error("consistency.size", text)
    elif old.size > new.size:
        report.error("trusted.rollback", f"the log had {old.size} leaves, and now {new.size}")
    elif old.size in {0, new.size}:
        if proof.hashes or (old.size and old.root != new.root):
            report.error("trusted.fork", f"two logs of {old.size} leaves")
    elif roots_by_consistency(old.size, new.size, old.root, proof.hashes) != (old.root, new.root):
        report.error("consistency.failed", "the old log is not proved to be part of the new one")


def check_archive(arguments: argparse.Namespace, key: Key, report: Report) -> None:
    """Verify all leaves of a log against a checkpoint."""
    checkpoint = checkpoint_in(read_text(arguments.checkpoint), key, report)
    trusted = None
    if arguments.trusted:
        trusted = checkpoint_in(read_text(arguments.trusted), key, report, "trusted")
    if checkpoint is None:
        return
    report.facts.update(checkpoint=checkpoint.facts())
    files: list[ArchiveFile | CoverFile] = [ArchiveFile(Path(name)) for name in arguments.file]
    if arguments.cover:
        files.append(CoverFile(Path(arguments.cover)))
    sources = [Source(file, report) for file in files]
    Audit(report, checkpoint, trusted, arguments.max_lag).run(sources)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    common = argparse.ArgumentParser(add_help=False)
    key = common.add_mutually_exclusive_group(required=True)
    key.add_argument("--key", help="the log's public key, name+id+base64")
    key.add_argument("--key-file", help="a file that holds it")
    common.add_argument("--json", action="store_true", help="report for programs")
    common.add_argument("--strict", action="store_true", help="a warning is as bad as an error")
    whole = argparse.ArgumentParser(description="Verifies the audit log of a licet.")
    commands = whole.add_subparsers(required=True)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:  # noqa: ANN401
        made = commands.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(run=run)
        return made

    one = command("checkpoint", check_checkpoint, "Verify the signature of a checkpoint.")
    one.add_argument("file", metavar="CHECKPOINT")
    one = command("inclusion", check_inclusion, "Verify that an event is in the log.")
    one.add_argument("file", metavar="PROOF")
    one.add_argument(
        "--leaf", help="the leaf, if the proof does not carry it or is not to be asked"
    )
    one.add_argument("--archive", help="an archive that holds the leaf, in place of --leaf")
    one = command("consistency", check_consistency, "Verify that a log only grew.")
    one.add_argument("file", metavar="PROOF")
    one.add_argument("--old", required=True, help="the earlier checkpoint, as you kept it")
    one = command("archive", check_archive, "Verify the leaves of a whole log.")
    one.add_argument("file", metavar="ARCHIVE", nargs="+")
    one.add_argument("--checkpoint", required=True, help="the checkpoint that they belong to")
    one.add_argument("--cover", help="hashes that stand for leaves that are not in the archives")
    one.add_argument("--trusted", help="an earlier checkpoint, as you kept it")
    one.add_argument(
        "--max-lag",
        type=float,
        default=3600.0,
        help="seconds that an event may be recorded late before it is a warning (3600)",
    )
    return whole


def main() -> int:
    """Run the command, print the report, return the exit status."""
    arguments = parser().parse_args()
    report = Report(strict=arguments.strict)
    try:
        try:
            key = read_key(arguments.key or read_text(arguments.key_file))
            arguments.run(arguments, key, report)
        except FormatError as error:
            report.error("input.malformed", str(error))
    except OSError as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return UNREADABLE
    report.print(as_json=arguments.json)
    return VERIFIED if report.verified else NOT_VERIFIED


if __name__ == "__main__":
    sys.exit(main())
