"""The golden vectors: fresh, and right by implementations that share nothing with ours."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from licet.domain.names import resource
from licet.domain.pattern import resource_pattern
from tests.conformance.make_vectors import FILES, FOLDER, LOG_FOLDER, audit_log, rendered
from tests.fakes.postgres import Cluster
from tests.properties.models import matches

LEAF = """
SELECT
  '\\x0010'::bytea
  || int4send(2) || int2send(1::smallint)
  || int4send(16) || uuid_send((given ->> 'event_id')::uuid)
  || int4send(8) || timestamptz_send((given ->> 'occurred_at')::timestamptz)
  || (SELECT string_agg(int4send(octet_length(text)) || convert_to(text, 'UTF8'), ''::bytea
                        ORDER BY position)
      FROM unnest(ARRAY['event_type', 'actor', 'principal', 'action', 'resource', 'capability_id',
                        'result', 'reason', 'policy_id', 'session_id', 'trace_id'])
           WITH ORDINALITY AS names (name, position)
      CROSS JOIN LATERAL (SELECT given ->> name AS text) AS texts)
  || int4send(8) || int8send((given ->> 'revision')::bigint)
  || int4send(octet_length(metadata) + 1) || '\\x01'::bytea || convert_to(metadata, 'UTF8')
FROM (SELECT given, (given ->> 'metadata')::jsonb::text AS metadata
      FROM (SELECT %s::jsonb) AS vector (given)) AS read
"""
"""The leaf by the functions with which PostgreSQL itself sends values, and nothing of ours."""


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return loaded


LEAF_VECTORS = read("audit_leaf_v1.json")["vectors"]


@pytest.mark.parametrize("name", FILES)
def test_the_vectors_are_what_the_generator_makes(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == rendered(FILES[name]())


def test_every_file_of_vectors_has_a_generator() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*FILES, LOG_FOLDER.name}
    assert {path.name for path in LOG_FOLDER.iterdir()} == audit_log().keys()


@pytest.mark.parametrize("name", audit_log())
def test_the_files_of_the_small_log_are_what_the_generator_makes(name: str) -> None:
    made, kept = audit_log()[name], (LOG_FOLDER / name).read_bytes()
    if isinstance(made, str):
        assert kept.decode() == made
    else:  # another zlib may pack in another way
        assert gzip.decompress(kept) == gzip.decompress(made)


@pytest.fixture(scope="module")
def postgres(cluster: Cluster) -> Iterator[psycopg.Connection]:
    """Provide a connection to an empty database."""
    with cluster.database() as database, database.connect() as connection:
        yield connection


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("vector", LEAF_VECTORS, ids=lambda vector: vector["name"])
def test_postgresql_makes_the_same_leaf(
    postgres: psycopg.Connection, vector: dict[str, str], zone: str
) -> None:
    postgres.execute("SELECT set_config('timezone', %s, false)", [zone])
    ((encoded,),) = postgres.execute(LEAF, [json.dumps(vector)]).fetchall()
    assert encoded.hex() == vector["leaf"]
    ((digest,),) = postgres.execute("SELECT sha256('\\x00'::bytea || %s)", [encoded]).fetchall()
    assert digest.hex() == vector["leaf_hash"]


def test_the_vectors_reach_the_edges_of_the_format() -> None:
    instants = {int(vector["occurred_at_us"]) for vector in LEAF_VECTORS}
    assert min(instants) == 0
    assert {946_684_799_999_999, 946_684_800_000_000} <= instants
    assert any(not vector["actor"] for vector in LEAF_VECTORS)
    assert any(not vector["principal"].isascii() for vector in LEAF_VECTORS)
    assert max(len(vector["metadata"]) for vector in LEAF_VECTORS) > 12 * 1024
    assert len({vector["leaf_hash"] for vector in LEAF_VECTORS}) == len(LEAF_VECTORS)


def test_a_plain_matcher_agrees_with_the_patterns() -> None:
    vectors = read("patterns.json")
    assert [case["pattern"] for case in vectors["cases"]] == vectors["patterns"]
    assert all(resource_pattern(pattern) for pattern in vectors["patterns"])
    assert all(resource(text) for text in vectors["resources"])
    for case in vectors["cases"]:
        pattern = case["pattern"]
        assert case["matches"] == [r for r in vectors["resources"] if matches(pattern, r)]
        # Whatever a pattern contains matches nothing that it does not.
        for other in vectors["cases"]:
            if other["pattern"] in case["contains"]:
                assert set(other["matches"]) <= set(case["matches"])
