"""The policy documents of the pages can be used, and their cases pass."""

from __future__ import annotations

import pytest

from licet.policies.reading import read_document
from tests.docs.blocks import Block, blocks

YAML = [block for block in blocks() if block.language == "yaml"]


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_policy_document_of_a_page_can_be_used(block: Block) -> None:
    assert read_document(block.text).policies
