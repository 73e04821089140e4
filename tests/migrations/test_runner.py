"""The runner of migrations, on small migrations of its own and a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from licet.domain.errors import UnavailableError
from licet.storage import migrate
from licet.storage.migrate import MigrationError, MigrationState
from licet.storage.schema import Migration, SchemaState, check, read_migrations
from tests.fakes.postgres import Database

FIRST = """
SET LOCAL lock_timeout = '4s';
CREATE SCHEMA licet;
CREATE TABLE licet.migrations (
  id text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
);
"""
# Where statements end is not for guessing: semicolons, dollars and BEGIN inside bodies, one body
# inside another, comments with quotes, percent signs, a SELECT that returns rows.
SECOND = """
-- It's a comment; with a quote, and $$.
CREATE FUNCTION licet.outer() RETURNS text LANGUAGE plpgsql AS $outer$
DECLARE answer text := 'a;b';
BEGIN
  IF answer LIKE 'a%' THEN EXECUTE $$SELECT 'in;ner'$$ INTO answer; END IF;
  RETURN CASE WHEN true THEN answer ELSE format('%s', 1) END;
END $outer$;
CREATE FUNCTION licet.atomic() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;
SELECT set_config('licet.noise', 'on', true);
CREATE TABLE licet.begin (declare_at int CHECK (declare_at % 2 = 0));
"""
SECOND_BACK = "DROP TABLE licet.begin; DROP FUNCTION licet.outer(), licet.atomic();"
THIRD = "INSERT INTO licet.begin VALUES (2); INSERT INTO licet.begin VALUES (3);"

Write = Callable[..., tuple[Migration, ...]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write migrations into a folder, one for each pair of forward and back, and read them."""

    def write_pairs(*pairs: tuple[str, str]) -> tuple[Migration, ...]:
        for number, (forward, back) in enumerate(pairs, start=1):
            (tmp_path / f"{number:04}.step.sql").write_text(forward, encoding="utf-8")
            (tmp_path / f"{number:04}.step.rollback.sql").write_text(back, encoding="utf-8")
        return read_migrations(tmp_path)

    return write_pairs


@pytest.fixture
def two(write: Write) -> tuple[Migration, ...]:
    return write((FIRST, "DROP TABLE licet.migrations; DROP SCHEMA licet;"), (SECOND, SECOND_BACK))


def applied(database: Database) -> list[str]:
    with database.connect() as connection:
        rows = connection.execute("SELECT id FROM licet.migrations ORDER BY id").fetchall()
    return [row[0] for row in rows]


def marked_by_yoyo(database: Database) -> list[str]:
    with database.connect() as connection:
        rows = connection.execute("SELECT migration_id FROM public._yoyo_migration").fetchall()
    return sorted(row[0] for row in rows)


def test_up_applies_each_migration_once(
    empty_database: Database, two: tuple[Migration, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert migrate.up(empty_database.url, migrations=two) == ("0001.step", "0002.step")
    assert migrate.up(empty_database.url, migrations=two) == ()
    assert applied(empty_database) == marked_by_yoyo(empty_database) == ["0001.step", "0002.step"]
    with empty_database.connect() as connection:
        assert connection.execute("SELECT licet.outer(), licet.atomic()").fetchone() == (
            "in;ner",
            2,
        )
    # Standard output belongs to the program that was called, which may print JSON.
    assert capfd.readouterr().out == ""


def test_down_takes_back_the_last_ones(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    migrate.up(empty_database.url, migrations=two)
    assert migrate.down(empty_database.url, migrations=two) == ("0002.step",)
    assert applied(empty_database) == ["0001.step"]
    assert migrate.up(empty_database.url, migrations=two) == ("0002.step",)
    assert migrate.down(empty_database.url, 5, migrations=two) == ("0002.step", "0001.step")
    assert migrate.down(empty_database.url, migrations=two) == ()
    assert marked_by_yoyo(empty_database) == []
    assert migrate.up(empty_database.url, migrations=two) == ("0001.step", "0002.step")


def test_status_says_what_is_applied_and_changes_nothing(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    assert migrate.status(empty_database.url, migrations=two) == [
        MigrationState("0001.step", applied=False, checksum_ok=True),
        MigrationState("0002.step", applied=False, checksum_ok=True),
    ]
    with empty_database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert row.fetchone() == (0,)
    migrate.up(empty_database.url, migrations=two[:1])
    assert migrate.status(empty_database.url, migrations=two) == [
        MigrationState("0001.step", applied=True, checksum_ok=True),
        MigrationState("0002.step", applied=False, checksum_ok=True),
    ]
    assert migrate.status(empty_database.url, migrations=()) == [
        MigrationState("0001.step", applied=True, checksum_ok=False),
    ]


def test_a_migration_that_fails_leaves_nothing_of_itself(
    empty_database: Database, two: tuple[Migration, ...], write: Write
) -> None:
    three = write(*((m.forward.decode(), m.rollback.decode()) for m in two), (THIRD, "SELECT 1;"))
    with pytest.raises(
        MigrationError, match=r"^0003\.step failed and changed nothing: .*check constraint"
    ):
        migrate.up(empty_database.url, migrations=three)
    assert applied(empty_database) == ["0001.step", "0002.step"]
    with empty_database.connect() as connection:
        assert connection.execute("SELECT * FROM licet.begin").fetchall() == []


def test_an_edited_migration_is_refused_once_it_is_applied(
    empty_database: Database, two: tuple[Migration, ...], write: Write
) -> None:
    migrate.up(empty_database.url, migrations=two[:1])
    first, second = ((m.forward.decode(), m.rollback.decode()) for m in two)
    edited = write((first[0] + "-- edited\n", first[1]), second)
    for run in (migrate.up, migrate.down):
        with pytest.raises(MigrationError, match=r"^0001\.step: the file is not the one"):
            run(empty_database.url, migrations=edited)
    assert applied(empty_database) == ["0001.step"]
    assert not migrate.status(empty_database.url, migrations=edited)[0].checksum_ok


def test_a_newer_schema_is_refused(empty_database: Database, two: tuple[Migration, ...]) -> None:
    migrate.up(empty_database.url, migrations=two)
    for run in (migrate.up, migrate.down):
        with pytest.raises(MigrationError, match=r"^0002\.step: applied by another release"):
            run(empty_database.url, migrations=two[:1])
    assert applied(empty_database) == ["0001.step", "0002.step"]


def test_a_crash_before_yoyo_takes_note_is_corrected(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    migrate.up(empty_database.url, migrations=two)
    with empty_database.connect() as connection:
        connection.execute("DELETE FROM public._yoyo_migration WHERE migration_id = '0002.step'")
    assert migrate.up(empty_database.url, migrations=two) == ()
    assert marked_by_yoyo(empty_database) == ["0001.step", "0002.step"]
    assert migrate.down(empty_database.url, migrations=two) == ("0002.step",)


def test_a_crash_after_a_rollback_is_corrected(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    migrate.up(empty_database.url, migrations=two)
    with empty_database.connect() as connection:
        connection.execute("CREATE TABLE marked AS TABLE public._yoyo_migration")
        migrate.down(empty_database.url, migrations=two)
        connection.execute("TRUNCATE public._yoyo_migration")
        connection.execute("INSERT INTO public._yoyo_migration TABLE marked")
    assert migrate.up(empty_database.url, migrations=two) == ("0002.step",)
    assert applied(empty_database) == ["0001.step", "0002.step"]


def test_a_connection_lost_in_a_migration_leaves_nothing_of_it(
    empty_database: Database, two: tuple[Migration, ...], write: Write
) -> None:
    lost = "CREATE TABLE licet.x (id int); SELECT pg_terminate_backend(pg_backend_pid());"
    three = write(*((m.forward.decode(), m.rollback.decode()) for m in two), (lost, "SELECT 1;"))
    with pytest.raises(UnavailableError):
        migrate.up(empty_database.url, migrations=three)
    assert applied(empty_database) == ["0001.step", "0002.step"]
    with empty_database.connect() as connection:
        assert connection.execute("SELECT to_regclass('licet.x')").fetchone() == (None,)


def test_a_role_without_the_right_is_told_so(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    role = f"weak_{empty_database.name}"
    with empty_database.connect() as connection:
        name = sql.Identifier(role)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'hunter2'").format(name))
        connection.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(name))
        url = make_conninfo(empty_database.url, user=role, password="hunter2")
        try:
            with pytest.raises(MigrationError, match=r"^0001\.step .*: permission denied"):
                migrate.up(url, migrations=two)
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
            connection.execute(sql.SQL("DROP ROLE {}").format(name))


def test_concurrent_runs_apply_everything_once(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    runs = 6
    together = threading.Barrier(runs)
    done: list[tuple[str, ...]] = []

    def run() -> None:
        together.wait(10)
        done.append(migrate.up(empty_database.url, migrations=two))

    threads = [threading.Thread(target=run) for _ in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == [()] * (runs - 1) + [("0001.step", "0002.step")]
    assert applied(empty_database) == ["0001.step", "0002.step"]


def test_a_run_does_not_wait_for_another_for_ever(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    with empty_database.connect() as other:
        other.execute(migrate._LOCK)  # noqa: SLF001 - as another run would
        with pytest.raises(MigrationError, match=r"not ended in 0\.05 s"):
            migrate.up(empty_database.url, migrations=two, lock_seconds=0.05)
    assert migrate.up(empty_database.url, migrations=two) == ("0001.step", "0002.step")


def test_an_administrator_named_as_the_schema_is_no_trap(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    # For a user named licet PostgreSQL looks into the schema licet, once it exists, before public.
    url = make_conninfo(empty_database.url, options="-csearch_path=licet,public")
    for count in (2, 0):
        assert len(migrate.up(url, migrations=two)) == count
    assert migrate.down(url, 2, migrations=two) == ("0002.step", "0001.step")


def test_a_password_may_hold_any_character(
    empty_database: Database, two: tuple[Migration, ...]
) -> None:
    name = f"admin_{empty_database.name}"
    password = "p%@:/ '\"\\?#=&+ü"
    role = sql.Identifier(name)
    with empty_database.connect() as connection:
        create = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
        connection.execute(create.format(role, sql.Literal(password)))
        try:
            url = make_conninfo(empty_database.url, user=name, password=password)
            assert migrate.up(url, migrations=two) == ("0001.step", "0002.step")
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_the_address_may_be_a_url(empty_database: Database, two: tuple[Migration, ...]) -> None:
    parts = conninfo_to_dict(empty_database.url)
    host = str(parts["host"]).replace("/", "%2F")
    url = f"postgresql://{parts['user']}@{host}:{parts.get('port', 5432)}/{empty_database.name}"
    assert migrate.up(url, migrations=two) == ("0001.step", "0002.step")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://licet:hunter@2@127.0.0.1/licet",
        "postgresql://licet:hun/ter2@127.0.0.1/licet",
        "postgresql://127.0.0.1/licet?hunter2",
        "host=127.0.0.1 password=hun ter2",
        "hunter2",
    ],
)
def test_a_malformed_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(MigrationError, match="malformed") as caught:
        migrate.up(url, migrations=())
    assert "ter" not in str(caught.value).replace("characters", "")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_database_that_cannot_be_reached_is_unavailable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = make_conninfo(host=str(tmp_path), user="licet", password="hunter2", dbname="licet")
    for run in (migrate.up, migrate.down, migrate.status):
        with pytest.raises(UnavailableError) as caught:
            run(url, migrations=())
        assert "hunter2" not in str(caught.value)
    assert "No such file or directory" in caplog.text
    assert "hunter2" not in caplog.text


def test_check_tells_every_difference(empty_database: Database, two: tuple[Migration, ...]) -> None:
    expected = [(m.id, m.sha256) for m in two]
    with empty_database.connect() as connection:
        assert check(connection, expected) == SchemaState(missing=("0001.step", "0002.step"))
        migrate.up(empty_database.url, migrations=two[:1])
        assert check(connection, expected) == SchemaState(missing=("0002.step",))
        migrate.up(empty_database.url, migrations=two)
        state = check(connection, expected)
        assert state.is_expected
        assert str(state) == "the schema is the expected one"
        state = check(connection, [("0001.step", "other"), ("0003.step", "x")])
        assert state == SchemaState(("0003.step",), ("0002.step",), ("0001.step",))
        assert not state.is_expected
        assert str(state) == (
            "not applied: 0003.step; applied, but unknown to this release: 0002.step; "
            "changed since they were applied: 0001.step"
        )


def test_check_leaves_the_callers_transaction_usable(empty_database: Database) -> None:
    with psycopg.connect(empty_database.url) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        assert not check(connection, [("0001.step", "x")]).is_expected
        connection.execute("INSERT INTO kept VALUES (1)")
    with empty_database.connect() as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_check_of_a_lost_connection_is_unavailable(empty_database: Database) -> None:
    connection = empty_database.connect()
    connection.close()
    with pytest.raises(UnavailableError):
        check(connection, [])
