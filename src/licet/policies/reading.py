"""From the text of a policy document to its policies, and the built-in sets."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from licet.domain import policy_cases
from licet.domain.document import Node
from licet.domain.policy_cases import Cases
from licet.domain.policy_document import Means, PolicyDocument, read
from licet.domain.policy_set import PolicySet
from licet.policies.cel import compile_condition
from licet.policies.yaml_tree import parse
from licet.policies.zones import zone

_BUILT_IN: Final = files("licet.policies") / "built_in"
_SUFFIX: Final = ".yaml"


@cache
def built_in_names() -> tuple[str, ...]:
    """Return the names of the built-in sets, each with its version, in order."""
    names = (item.name for item in _BUILT_IN.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def built_in_text(name: str) -> str | None:
    """Return the document of a built-in set; None: there is none of that name.

    What a version of a set says never changes: a stored set that includes it keeps its meaning.
    """
    if name not in built_in_names():
        return None
    return (_BUILT_IN / f"{name}{_SUFFIX}").read_text("utf-8")


def schema_text() -> str:
    """Return the JSON Schema of policy documents, for editors."""
    return (files("licet.policies") / "policy-set.schema.json").read_text("utf-8")


def read_document(source: str) -> PolicyDocument:
    """Read a policy document.

    Raises:
        DocumentError: it cannot be used; each fault with its line and column.
    """
    return read(parse(source), Means(compile_condition, zone, _built_in))


def compile_set(source: str, version: int = 0) -> PolicySet:
    """Compile a policy document. Raises DocumentError."""
    return PolicySet(read_document(source).policies, version)


class Documents:
    """See `app.policy_ports.ReadDocuments`."""

    def policies(self, source: str) -> PolicyDocument:
        """See `ReadDocuments.policies`."""
        return read_document(source)

    def cases(self, source: str) -> Cases:
        """See `ReadDocuments.cases`."""
        return policy_cases.read(parse(source))


def _built_in(name: str) -> Node | None:
    source = built_in_text(name)
    return None if source is None else parse(source)
