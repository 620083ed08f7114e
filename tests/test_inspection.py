"""`pawprint-logging check`: what stands in the way, and that its mend mends it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.commandline import CommandLine, Result, role
from support.server import PASSWORD, Server
from support.shop import fallback, handler_on, logger_with, value

from pawprint_logging import PawprintHandler, Tracker


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], db: str) -> CommandLine:
    """Runs commands on the test's database, as the owner of the tables."""
    command_line = CommandLine(capsys)
    command_line.options = ["--db", db, "--table", "events"]
    return command_line


@pytest.fixture
def writer(server: Server, check: CommandLine, connection: Any) -> Iterator[str]:
    """A role without any rights, as which commands run from then on."""
    name = f"Writer {connection.info.dbname[-8:]}"
    quoted = f'"{name}"'
    for _ in role(server, quoted, connection):
        check.options[1] = server.dsn(connection.info.dbname, user=name, password=quoted)
        yield quoted


def mends(result: Result) -> list[str]:
    """Return the statements that the output offers for what fails."""
    lines = result.out.splitlines()
    return [after.strip().removeprefix("-> ") for line, after in pairwise(lines) if line.startswith("FAIL")]


def failing(result: Result, mend: str) -> None:
    """Assert that one thing fails, with this mend, said once more in one line on standard error."""
    assert result.status == 1
    assert mends(result) == [mend]
    assert result.err.startswith("pawprint-logging: ")
    assert result.err.endswith(f": {mend}\n")
    assert result.err.count("\n") == 1


def test_a_table_that_is_as_it_should_be(check: CommandLine, db: str) -> None:
    Tracker(db=db, table="events").create_table()

    result = check("check")

    assert (result.status, result.err) == (0, "")
    assert PASSWORD not in result.out
    for words in (
        "connected to database",
        "PostgreSQL 18",
        "no TLS, and none needed",
        "clocks",
        "table events",
        "may INSERT",
        "may SELECT",
        "ledger",
    ):
        assert words in result.out


def test_a_missing_table_and_the_statement_that_makes_it(check: CommandLine, connection: Any) -> None:
    result = check("check")

    failing(result, Tracker(table="events").layout.ddl())
    connection.cursor().execute(mends(result)[0])
    failing(check("check"), Tracker(table="events").layout.ledger_ddl())
    connection.cursor().execute(Tracker(table="events").layout.ledger_ddl())
    assert check("check").status == 0


def test_a_missing_schema(check: CommandLine) -> None:
    check.options[-1] = "analytics.events"

    failing(check("check"), 'CREATE SCHEMA "analytics"')


def test_each_right_that_is_lacking_in_turn_until_an_event_arrives(
    server: Server, check: CommandLine, connection: Any, db: str, writer: str
) -> None:
    Tracker(db=db, table="events").create_table()
    expected = [
        [f'GRANT INSERT ON "events" TO {writer}', f'GRANT INSERT ON "events__deliveries" TO {writer}'],
        [f"GRANT USAGE ON SEQUENCE events_id_seq TO {writer}"],
        [],
    ]

    for statements in expected:
        result = check("check")
        assert mends(result) == statements
        assert result.status == (1 if statements else 0)
        for statement in statements:
            connection.cursor().execute(statement)

    handler = handler_on(check.options[1], create_table=False)
    logger_with(handler).info("x", extra={"event": "signup"})
    handler.close()
    assert handler.stats.written == 1
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 1


def test_a_schema_that_the_role_may_not_use(server: Server, check: CommandLine, connection: Any, writer: str) -> None:
    connection.cursor().execute("CREATE SCHEMA analytics")
    check.options[-1] = "analytics.events"

    failing(check("check"), f'GRANT USAGE ON SCHEMA "analytics" TO {writer}')
    connection.cursor().execute(f'GRANT USAGE ON SCHEMA "analytics" TO {writer}')
    result = check("check")
    assert mends(result)[0].startswith('CREATE TABLE "analytics"."events"')
    assert f'GRANT CREATE ON SCHEMA "analytics" TO {writer}' in result.out


def test_reading_needs_other_rights_than_writing(check: CommandLine, connection: Any, db: str, writer: str) -> None:
    Tracker(db=db, table="events").create_table()
    select = f'GRANT SELECT ON "events" TO {writer}'

    failing(check("check", "--for", "read"), select)
    connection.cursor().execute(select)
    assert check("check", "--for", "read").status == 0
    assert len(mends(check("check", "--for", "both"))) == 2


def test_rights_on_the_columns_alone_suffice(check: CommandLine, connection: Any, db: str, writer: str) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(f'GRANT INSERT ("timestamp", user_id, event, metadata) ON events TO {writer}')
    connection.cursor().execute(
        f"GRANT INSERT ON events__deliveries TO {writer}; GRANT USAGE ON SEQUENCE events_id_seq TO {writer}"
    )

    assert check("check").status == 0


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ("ALTER TABLE events DROP COLUMN user_id", 'ALTER TABLE "events" ADD COLUMN "user_id" VARCHAR(32)'),
        ("ALTER TABLE events DROP COLUMN event", 'ALTER TABLE "events" ADD COLUMN "event" VARCHAR(64)'),
        (
            "ALTER TABLE events ALTER COLUMN metadata TYPE TEXT",
            'ALTER TABLE "events" ALTER COLUMN "metadata" TYPE JSONB USING "metadata"::jsonb',
        ),
        (
            "ALTER TABLE events ALTER COLUMN metadata TYPE TEXT, ALTER COLUMN metadata SET DEFAULT '{}'",
            (
                'ALTER TABLE "events" ALTER COLUMN "metadata" DROP DEFAULT, ALTER COLUMN "metadata" TYPE JSONB'
                ' USING "metadata"::jsonb'
            ),
        ),
        (
            "ALTER TABLE events ALTER COLUMN metadata TYPE TEXT[] USING NULL",
            'ALTER TABLE "events" ALTER COLUMN "metadata" TYPE JSONB USING to_jsonb("metadata")',
        ),
        (
            "ALTER TABLE events ADD COLUMN tenant INT NOT NULL",
            'ALTER TABLE "events" ALTER COLUMN "tenant" DROP NOT NULL',
        ),
    ],
)
def test_columns_that_no_event_would_fit(check: CommandLine, connection: Any, db: str, change: str, mend: str) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(change)

    failing(check("check"), mend)
    connection.cursor().execute(mend)
    assert check("check").status == 0


@pytest.mark.parametrize(
    ("column", "mend"),
    [
        (
            "id BIGINT PRIMARY KEY",
            (
                'ALTER TABLE "events" ALTER COLUMN "id" ADD GENERATED BY DEFAULT AS IDENTITY;'
                """ SELECT setval(pg_get_serial_sequence('"events"', 'id'), max("id")) FROM "events\""""
                ' HAVING max("id") > 0'
            ),
        ),
        ("id UUID PRIMARY KEY", 'ALTER TABLE "events" ALTER COLUMN "id" SET DEFAULT gen_random_uuid()'),
        ("id INT NOT NULL", 'ALTER TABLE "events" ALTER COLUMN "id" DROP NOT NULL'),
    ],
)
@pytest.mark.parametrize("numbers", [(), (1,), (0,), (-5,)])
def test_a_number_that_nobody_gives(
    check: CommandLine, connection: Any, db: str, server: Server, column: str, mend: str, numbers: tuple[int, ...]
) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(f"ALTER TABLE events DROP COLUMN id, ADD COLUMN {column}")
    for number in numbers:
        first = "00000000-0000-0000-0000-000000000001" if "UUID" in column else str(number)
        connection.cursor().execute("INSERT INTO events (id) VALUES (%s)", (first,))
    lost = fallback()
    handler = PawprintHandler(db=db, table="events")
    log = logger_with(handler)
    log.info("x", extra={"event": "refused"})
    assert handler.flush(60)

    failing(check("check"), mend)
    assert any("see `pawprint-logging check`" in record.getMessage() for record in lost.records)
    connection.cursor().execute(mend)
    assert check("check").status == 0
    log.info("x", extra={"event": "written"})
    handler.close()
    assert (handler.stats.written, handler.stats.diverted) == (1, 1)


@pytest.mark.parametrize("column", ["VARCHAR(8) PRIMARY KEY", "INT PRIMARY KEY REFERENCES others"])
def test_a_key_that_no_statement_of_ours_fills_gets_none(
    check: CommandLine, connection: Any, db: str, column: str
) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(
        f"CREATE TABLE others (id INT PRIMARY KEY); ALTER TABLE events DROP COLUMN id, ADD COLUMN id {column}"
    )
    result = check("check")
    assert result.status == 1
    assert "column id must not be NULL" in result.out
    assert 'COLUMN "id"' not in result.out


@pytest.mark.parametrize(
    "change",
    [
        (
            "CREATE FUNCTION number() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := 7; RETURN NEW; END';"
            " ALTER TABLE events DROP COLUMN id, ADD COLUMN id BIGINT PRIMARY KEY;"
            " CREATE TRIGGER number BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION number()"
        ),
        "CREATE DOMAIN seven AS INT DEFAULT 7; ALTER TABLE events DROP COLUMN id, ADD COLUMN id seven PRIMARY KEY",
    ],
    ids=["trigger", "domain"],
)
def test_a_number_that_a_trigger_or_a_domain_gives(check: CommandLine, connection: Any, db: str, change: str) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(change)
    assert check("check").status == 0
    assert value(connection, "SELECT count(*) FROM events") == 0


@pytest.mark.parametrize(
    ("body", "state"),
    [("NEW.metadata := '{}'", "ENABLE"), ("NEW.id := 7", "ENABLE REPLICA"), ("NEW.id := 7", "DISABLE")],
)
def test_a_trigger_that_gives_no_number(check: CommandLine, connection: Any, db: str, body: str, state: str) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(
        f"CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NEW; END $$;"
        " ALTER TABLE events DROP COLUMN id, ADD COLUMN id BIGINT PRIMARY KEY;"
        " CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION touch();"
        f" ALTER TABLE events {state} TRIGGER touch"
    )

    assert "column id must not be NULL" in check("check").err
    connection.cursor().execute(mends(check("check"))[0])
    assert check("check").status == 0


def test_whether_a_trigger_gives_a_number_may_stay_open(check: CommandLine, connection: Any, db: str) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(
        "CREATE FUNCTION choosy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no such event'; END $$;"
        " ALTER TABLE events DROP COLUMN id, ADD COLUMN id BIGINT PRIMARY KEY;"
        " CREATE TRIGGER choosy BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION choosy()"
    )

    result = check("check")
    assert result.status == 0
    assert "note  column id must not be NULL" in result.out
    assert "unless a trigger fills it" in " ".join(result.out.split())


@pytest.mark.parametrize("user_type", ["TEXT", "UUID", "INT"])
def test_what_no_trigger_fills_is_found_beside_columns_that_events_fill(
    check: CommandLine, connection: Any, db: str, tmp_path: Path, user_type: str
) -> None:
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "TIMESTAMP", "user_id": user_type, "event": "TEXT"}
    schema |= {"plan": "VARCHAR(8) COLLATE \"default\" NOT NULL CHECK (plan <> 'default')", "metadata": "JSONB"}
    Tracker(db=db, table="events", schema=schema).create_table()
    (tmp_path / "dot").write_text(json.dumps({"schema": schema}))
    assert check("check", "--dotfile", str(tmp_path / "dot")).status == 0
    connection.cursor().execute(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.metadata := '{}'; RETURN NEW; END $$;"
        " CREATE TRIGGER touch BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION touch();"
        " ALTER TABLE events ADD tenant TEXT NOT NULL"
    )

    failing(
        check("check", "--dotfile", str(tmp_path / "dot")), 'ALTER TABLE "events" ALTER COLUMN "tenant" DROP NOT NULL'
    )


def test_a_default_that_the_schema_has_and_the_table_has_not(
    check: CommandLine, connection: Any, db: str, tmp_path: Path
) -> None:
    schema = {"id": "UUID PRIMARY KEY DEFAULT gen_random_uuid()", "timestamp": "TIMESTAMP NOT NULL DEFAULT now()"}
    schema |= {"user_id": "TEXT", "event": "TEXT", "metadata": "JSONB"}
    Tracker(db=db, table="events", schema=schema).create_table()
    (tmp_path / "dot").write_text(json.dumps({"schema": schema}))
    assert check("check", "--dotfile", str(tmp_path / "dot")).status == 0
    connection.cursor().execute("ALTER TABLE events ALTER id DROP DEFAULT, ALTER timestamp DROP DEFAULT")

    result = check("check", "--dotfile", str(tmp_path / "dot"))
    mend = 'ALTER TABLE "events" ALTER COLUMN "id" SET DEFAULT gen_random_uuid()'
    failing(result, mend)
    connection.cursor().execute(mend)
    assert check("check", "--dotfile", str(tmp_path / "dot")).status == 0


@pytest.mark.parametrize("key", ["", "PRIMARY KEY"])
def test_a_column_that_a_parent_forbids_to_be_null(check: CommandLine, connection: Any, key: str) -> None:
    columns = Tracker(table="events").layout.ddl().replace('"events"', "oldest").replace("SERIAL PRIMARY KEY", "INT")
    connection.cursor().execute(
        f"{columns}; ALTER TABLE oldest ALTER id SET NOT NULL{f', ADD {key} (id)' if key else ''};"
        "CREATE TABLE older () INHERITS (oldest); CREATE TABLE events () INHERITS (older);"
        + Tracker(table="events").layout.ledger_ddl()
    )

    (mend,) = mends(check("check"))
    assert mend.startswith('ALTER TABLE "events"' if key else "ALTER TABLE oldest ALTER COLUMN")
    connection.cursor().execute(mend)
    assert check("check").status == 0


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("CREATE VIEW seen AS SELECT metadata, user_id FROM events", "view seen"),
        (
            "ALTER TABLE events ADD COLUMN size INT GENERATED ALWAYS AS (length(metadata || user_id)) STORED",
            "column size",
        ),
    ],
)
def test_what_uses_a_column_whose_type_should_change_is_named(
    check: CommandLine, connection: Any, db: str, user: str, name: str
) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(
        f"ALTER TABLE events ALTER metadata TYPE TEXT, ALTER user_id SET DEFAULT '';"
        f"CREATE INDEX ON events (user_id); {user}"
    )

    findings = [line for line in " ".join(check("check").out.split()).split("->") if "drop what uses it first" in line]
    assert len(findings) == 2
    assert all(name in each and "column metadata of" not in each and "index" not in each for each in findings)


def test_columns_of_the_dotfiles_schema(check: CommandLine, connection: Any, db: str, tmp_path: Path) -> None:
    Tracker(db=db, table="events").create_table()
    schema = {**Tracker().schema, "tenant": "INT DEFAULT 1"}
    (tmp_path / "dot").write_text(json.dumps({"schema": schema}))

    failing(
        check("check", "--dotfile", str(tmp_path / "dot")), 'ALTER TABLE "events" ADD COLUMN "tenant" INT DEFAULT 1'
    )


def test_a_database_for_reading_only(check: CommandLine, connection: Any, db: str, server: Server, writer: str) -> None:
    server.execute(f"ALTER ROLE {writer} SET default_transaction_read_only = on")

    assert f"ALTER ROLE {writer} SET default_transaction_read_only = off" in mends(check("check"))


def test_a_standby_takes_no_writes(check: CommandLine, private_server: Any) -> None:
    primary = private_server()
    Tracker(db=primary.dsn("postgres", user="postgres", password=PASSWORD), table="events").create_table()
    standby = primary.standby()
    check.options[1] = standby.dsn("postgres", user="postgres", password=PASSWORD)

    failing(check("check"), "name the primary in db, or several hosts with target_session_attrs=read-write")
    assert check("check", "--for", "read").status == 0


def test_what_works_and_is_worth_knowing_is_a_note(
    check: CommandLine, connection: Any, db: str, server: Server
) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute("ALTER TABLE events ENABLE ROW LEVEL SECURITY")
    server.execute(f"ALTER DATABASE {connection.info.dbname} SET timezone = 'Asia/Tokyo'")

    result = check("check")

    assert result.status == 0
    assert "note  row-level security is on" in result.out
    assert f"-> ALTER DATABASE \"{connection.info.dbname}\" SET timezone = 'UTC'" in result.out


def test_a_partitioned_table_is_as_good(check: CommandLine, connection: Any) -> None:
    connection.cursor().execute(
        "CREATE TABLE events (id BIGINT GENERATED ALWAYS AS IDENTITY, "
        "timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,"
        " user_id TEXT, event TEXT, metadata JSONB) PARTITION BY RANGE (timestamp);"
        "CREATE TABLE events_all PARTITION OF events DEFAULT;" + Tracker(table="events").layout.ledger_ddl()
    )

    result = check("check")

    assert result.status == 0
    assert "partitioned table events" in result.out


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (
            (
                "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
                "CREATE TRIGGER quiet BEFORE INSERT ON events__deliveries FOR EACH ROW EXECUTE FUNCTION swallow()"
            ),
            'DROP TRIGGER "quiet" ON "events__deliveries"',
        ),
        (
            "CREATE RULE quiet AS ON INSERT TO events__deliveries DO INSTEAD NOTHING",
            'DROP RULE "quiet" ON "events__deliveries"',
        ),
        (
            "ALTER TABLE events__deliveries DROP CONSTRAINT events__deliveries_pkey",
            'ALTER TABLE "events__deliveries" ADD PRIMARY KEY (delivery)',
        ),
        (
            "ALTER TABLE events__deliveries ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            'ALTER TABLE "events__deliveries" DISABLE ROW LEVEL SECURITY',
        ),
    ],
)
def test_a_ledger_that_keeps_no_promise(check: CommandLine, connection: Any, db: str, change: str, mend: str) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(change)

    failing(check("check"), mend)
    connection.cursor().execute(mend)
    assert check("check").status == 0
    assert value(connection, "SELECT count(*) FROM events__deliveries") == 0


def test_policies_decide_whether_rows_may_be_inserted(
    check: CommandLine, connection: Any, db: str, server: Server, writer: str
) -> None:
    Tracker(db=db, table="events").create_table()
    connection.cursor().execute(
        f"GRANT INSERT ON events, events__deliveries TO {writer}; GRANT USAGE ON SEQUENCE events_id_seq TO {writer};"
        "ALTER TABLE events ENABLE ROW LEVEL SECURITY; CREATE POLICY seeing ON events FOR SELECT USING (true)"
    )
    mend = f'CREATE POLICY inserting ON "events" FOR INSERT TO {writer} WITH CHECK (true)'
    failing(check("check"), mend)
    with Tracker(db=check.options[1], table="events") as tracker, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        tracker.write(event="refused")

    connection.cursor().execute(mend)
    done = check("check")
    assert done.status == 0
    assert "rows go by INSERT" in done.out
    assert f"ALTER ROLE {writer} BYPASSRLS" in done.out
    with Tracker(db=check.options[1], table="events") as tracker:
        tracker.write(event="accepted")

    server.execute(f"ALTER ROLE {writer} BYPASSRLS")
    assert "rows go by INSERT" not in check("check").out


def test_a_user_column_too_narrow_for_a_uuid_is_noted_with_the_statement(
    check: CommandLine, connection: Any, db: str
) -> None:
    Tracker(db=db, table="events").create_table()
    mend = 'ALTER TABLE "events" ALTER COLUMN "user_id" TYPE TEXT'

    assert f"-> {mend}" in check("check").out
    connection.cursor().execute(mend)
    assert "a UUID has" not in check("check").out


def test_a_table_by_day_is_said_to_be_one(check: CommandLine, connection: Any, db: str) -> None:
    Tracker(db=db, table="events").create_table(partition_by="day")

    out = check("check").out
    assert "partitioned table events" in out
    assert "split by day: 4 partitions" in out
    assert "there is a partition for the current time" in out
    assert "there is a partition for the next day" in out
    assert "the ledger is there, a plain table" in out


def test_partitions_that_are_missing_or_pending(check: CommandLine, connection: Any, db: str) -> None:
    Tracker(db=db, table="events").create_table(partition_by="day")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass ORDER BY 1"
        )
        today, tomorrow, *_ = [row[0] for row in cursor.fetchall()]
        cursor.execute(f"DROP TABLE {today}, {tomorrow}; CREATE TABLE rest PARTITION OF events DEFAULT")
        assert "a default partition" in check("check").out
        cursor.execute("DROP TABLE rest")

    result = check("check")
    assert result.status == 0
    assert "the first event creates it" in result.out
    assert "there is no partition for the next day" in result.out
    assert "-> pawprint-logging maintain --table events" in result.out


def test_a_missing_partition_fails_for_a_role_that_may_not_make_it(
    check: CommandLine, connection: Any, db: str, writer: str
) -> None:
    Tracker(db=db, table="events").create_table(partition_by="day")
    with connection.cursor() as cursor:
        cursor.execute(f"GRANT INSERT ON events, events__deliveries TO {writer}")
        cursor.execute("SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'events'::regclass")
        cursor.execute(f"DROP TABLE {cursor.fetchone()[0]}")

    failing(check("check"), "pawprint-logging maintain --table events")


def test_a_standby_that_is_away_is_named(check: CommandLine, private_server: Any) -> None:
    server: Server = private_server()
    db = server.dsn("postgres", user="postgres", password=PASSWORD)
    Tracker(db=db, table="events").create_table()
    check.options[1] = db
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
    server.execute("SELECT pg_reload_conf()")
    waiting = threading.Thread(target=lambda: Tracker(db=db, table="events").write(event="x"))
    waiting.start()
    deadline = time.monotonic() + 60
    waits_long = "wait_event = 'SyncRep' AND state_change < clock_timestamp() - interval '1 s'"
    while not server.execute(f"SELECT 1 FROM pg_stat_activity WHERE {waits_long}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    failing(check("check"), "ALTER SYSTEM SET synchronous_standby_names = ''")
    server.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
    server.execute("SELECT pg_reload_conf()")
    waiting.join(60)
    assert check("check").status == 0
