"""YAML as a tree that knows its places: only what a policy document needs, within bounds.

No aliases, no tags, no second document: nothing can expand, and nothing becomes an object. JSON is
YAML, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

from licet.domain.document import DocumentError, Fault, Mapped, Node, Place, Scalar, Sequenced

MAX_BYTES: Final = 512 * 1024
MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 12

_START: Final = Place(1, 1)
_ALIASES: Final = "must not use anchors and aliases"
# libyaml's parser, if PyYAML was built with it: the same events, ten times as fast.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(source: str) -> Node:
    """Return the tree of a document.

    Raises:
        DocumentError: it is no YAML, or more than is accepted.
    """
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise DocumentError(Fault(_START, "", "must be valid UTF-8")) from None
    if size > MAX_BYTES:
        raise DocumentError(Fault(_START, "", f"must have at most {MAX_BYTES} bytes"))
    try:
        return _Reader(yaml.parse(source, Loader=_LOADER)).read()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        rule = f"is no YAML: {exc.problem or exc.context}"
        raise DocumentError(Fault(_START if mark is None else _place(mark), "", rule)) from None
    except yaml.YAMLError as exc:
        reason = str(exc).splitlines()[0]
        raise DocumentError(Fault(_START, "", f"is no YAML: {reason}")) from None


class _Reader:
    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._nodes = 0

    def read(self) -> Node:
        root: Node | None = None
        for event in self._events:
            match event:
                case yaml.StreamStartEvent() | yaml.StreamEndEvent() | yaml.DocumentEndEvent():
                    continue
                case yaml.DocumentStartEvent():
                    if root is not None:
                        raise _fault(event, "", "must be one document")
                case _:
                    root = self._node(event, "", 1)
        if root is None:
            raise DocumentError(Fault(_START, "", "must not be empty"))
        return root

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            rule = f"must have at most {MAX_NODES} nodes and {MAX_DEPTH} levels"
            raise _fault(event, path, rule)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _fault(event, path, _ALIASES)
        if getattr(event, "tag", None) is not None:
            raise _fault(event, path, "must not have a tag")
        place = _place(event.start_mark)
        match event:
            case yaml.ScalarEvent():
                return Scalar(place, path, event.value, is_plain=bool(event.implicit[0]))
            case yaml.SequenceStartEvent():
                return Sequenced(place, path, tuple(self._items(path, depth)))
            case yaml.MappingStartEvent():
                return Mapped(place, path, tuple(self._fields(path, depth)))
            case _:
                raise _fault(event, path, "is no part of a document")

    def _items(self, path: str, depth: int) -> Iterator[Node]:
        for number, event in enumerate(self._events):
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self._node(event, f"{path}[{number}]", depth + 1)

    def _fields(self, path: str, depth: int) -> Iterator[tuple[Scalar, Node]]:
        seen: set[str] = set()
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                return
            key = self._node(event, path, depth + 1)
            if not isinstance(key, Scalar):
                raise key.fault("must have texts as keys")
            inner = f"{path}.{key.text}" if path else key.text
            if key.text in seen:
                raise _fault(event, inner, "must not be there twice")
            seen.add(key.text)
            named = Scalar(key.place, inner, key.text, key.is_plain)
            yield named, self._node(next(self._events), inner, depth + 1)


def _place(mark: Any) -> Place:  # noqa: ANN401 - of either parser
    return Place(mark.line + 1, mark.column + 1)


def _fault(event: yaml.Event, path: str, rule: str) -> DocumentError:
    return DocumentError(Fault(_place(event.start_mark), path, rule))
