"""What every test may ask for: a database of its own, on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from licet.storage import migrate
from tests.fakes.postgres import Cluster, Database, running_cluster
from tests.fakes.serving import Served, serving

# On CI the examples are the same every time: a check that fails for a reason outside the change
# teaches people to press "retry". Everywhere else each run looks at new ones, and what it finds
# is kept in `.hypothesis` until it is mended. Neither has a deadline per example: a busy machine
# is not a defect, and pytest-timeout bounds the whole test.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("developer", deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "developer")


@pytest.fixture(scope="module", autouse=True)
def _state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what a host keeps of its audit logs in a folder of this module, and no longer.

    Each server has some 50 MB of segments there: those of a whole run fill a small disk.
    """
    folder = tmp_path_factory.mktemp("state")
    os.environ["LICET_STATE_DIR"] = str(folder)
    yield
    del os.environ["LICET_STATE_DIR"]
    shutil.rmtree(folder, ignore_errors=True)  # a server that was killed may leave something


@pytest.fixture(autouse=True)
def _survives_pipes() -> Iterator[None]:
    """Have no command that runs in this process leave it to end by SIGPIPE, as commands do."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture(scope="module", params=["auto", "stock"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have the tests that use this run twice, on servers that serve in the one way or the other."""
    os.environ["LICET_SERVING"] = request.param
    yield request.param
    del os.environ["LICET_SERVING"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Provide the PostgreSQL of this test run."""
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="session")
def migrated_template(cluster: Cluster) -> Iterator[Database]:
    """Provide a database with licet's schema, to copy and never to connect to."""
    with cluster.database() as template:
        migrate.up(template.url)
        yield template


@pytest.fixture
def database(cluster: Cluster, migrated_template: Database) -> Iterator[Database]:
    """Provide a new database with licet's schema and nothing in it."""
    with cluster.database(migrated_template) as copy:
        yield copy


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """Provide a new database without licet's schema."""
    with cluster.database() as new:
        yield new


@pytest.fixture
def served(database: Database) -> Iterator[Served]:
    """Provide a licet that serves a new database, and a client of it."""
    with serving(database) as running:
        yield running
