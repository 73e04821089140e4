"""What several processes do to one database at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests.fakes.postgres import Database

_PROCESSES = 8
_DAYS = 5


def test_a_missing_partition_is_made_once_by_all_who_need_it(database: Database) -> None:
    together = Barrier(_PROCESSES)

    def start() -> None:
        with database.connect() as connection:
            together.wait(10)
            for day in range(_DAYS):
                connection.execute(
                    "SELECT audit.ensure_partition(now() + %s * interval '1 day')", [day]
                )

    with ThreadPoolExecutor(_PROCESSES) as processes:
        for done in [processes.submit(start) for _ in range(_PROCESSES)]:
            done.result(30)
