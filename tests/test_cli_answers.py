"""The answers of the command line to questions of people: their screens, hints and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commandline import SHOP, CommandLine, environment, insert, one_line, program
from support.screen import Screen
from support.shop import tracker_on

from pawprint_logging import Tracker
from pawprint_logging._console.plot import lines_of


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], db: str, connection: Any) -> CommandLine:
    tracker_on(db)
    insert(connection, *SHOP)
    made = CommandLine(capsys)
    made.options = ["--db", db, "--table", "events"]
    return made


def test_top_counts_values(cli: CommandLine) -> None:
    assert cli("top", "--limit", "1").rows == [["signup", "2", "2"]]


def test_paths_follow_users(cli: CommandLine) -> None:
    assert cli("paths", "--after", "signup", "--depth", "1").rows == [
        ["1", "signup", "purchase", "1"],
        ["1", "signup", "view", "1"],
    ]


def test_the_catalogue_names_events_and_fields(cli: CommandLine) -> None:
    found = {(row["event"], row["field"]) for row in cli("catalogue", "--format", "json").json}

    assert ("signup", "metadata__plan") in found


def test_the_catalogue_is_held_against_a_plan(cli: CommandLine, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "shop_plan_of_test.py").write_text(
        "from pawprint_logging import Event\nclass Signup(Event, name='signup'):\n    plan: str\n    n: str\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    result = cli("catalogue", "--plan", "shop_plan_of_test")

    assert result.status == 1
    assert "signup.n: is integer, and declared as text" in result.out
    assert "view: is in the table, and not declared" in result.out


@pytest.mark.parametrize("command", [["count"], ["read"], ["top"], ["catalogue"], ["funnel", "signup"], ["retention"]])
def test_a_time_that_cannot_be_read_is_one_line(cli: CommandLine, command: list[str]) -> None:
    one_line(cli(*command, "--since", "7x"), "7d")


@pytest.mark.parametrize("command", [["count"], ["read"], ["top"]])
def test_an_answer_that_is_empty_by_mistake_says_so(cli: CommandLine, command: list[str]) -> None:
    result = cli(*command, "--where", "event=singup")

    assert result.status == 0
    assert "no event 'singup'; did you mean 'signup'?" in result.err


def test_a_formula_is_harmless_in_csv(cli: CommandLine, connection: Any) -> None:
    insert(connection, ("2026-02-01", "=1+1", "-x", {}))

    assert "'=1+1,'-x" in cli("read", "user_id", "event").out


@pytest.mark.parametrize("style", ["table", "csv", "json", "markdown"])
def test_no_format_lets_escape_sequences_reach_a_terminal(cli: CommandLine, connection: Any, style: str) -> None:
    insert(connection, ("2026-02-01", "\x1b[31mred\x9b2J", "x", {}))

    screen = Screen(program("read", "user_id", "event", "--format", style, *cli.options), environment(), columns=80)
    assert screen.finish() == 0
    assert b"\x1b[31mred" not in screen.raw
    assert "\x9b" not in screen.raw.decode()


def test_markdown_has_its_bars_escaped(cli: CommandLine, connection: Any) -> None:
    insert(connection, ("2026-02-01", "a|b", "x", {}))

    assert "a\\|b" in cli("read", "user_id", "--format", "markdown").out


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_an_amount_of_any_size_keeps_its_cents(cli: CommandLine, connection: Any, style: str) -> None:
    amounts = [123456.78, 999999.99, 12345.5, 20000, 0.00005]
    insert(connection, *((f"2026-02-{day:02}", "a", "paid", {"cost": cost}) for day, cost in enumerate(amounts, 1)))

    out = cli("sum", "metadata__cost", "--where", "event=paid", "--format", style).out

    assert out.replace("|", "").split()[-10:] == [
        word for day, text in enumerate(["123456.78", "999999.99", "12345.50", "20000", "5e-05"], 1)
        for word in (f"2026-02-{day:02}", text)
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_an_answer_goes_into_a_file(cli: CommandLine, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"

    assert cli("top", "--output", str(path)).status == 0
    assert path.stat().st_size


def test_numbers_that_parquet_has_no_type_for_become_text(cli: CommandLine, tmp_path: Path, connection: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    insert(connection, ("2026-02-01", "a", "x", {"big": 10**29}), ("2026-02-02", "a", "x", {"big": 5}))
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ADD COLUMN amount NUMERIC")
        cursor.execute("UPDATE events SET amount = CASE WHEN event = 'x' THEN 1.50 ELSE 'Infinity'::numeric END")
    path = tmp_path / "a.parquet"

    result = cli("read", "metadata__big", "amount", "--since", "2026-01-09", "--output", str(path))

    assert (result.status, result.out) == (0, "")
    assert parquet.read_table(path).to_pydict() == {
        "metadata__big": [None, str(10**29), "5"],
        "amount": ["Infinity", "1.50", "1.50"],
    }


@pytest.mark.parametrize(
    ("moment", "day"),
    [("20000-03-15 10:00", "20000-03-15"), ("0044-03-15 10:00 BC", "-0043-03-15"), ("0001-02-03 10:00", "0001-02-03")],
)
def test_one_wrong_time_of_any_year_is_shown_as_it_is(
    cli: CommandLine, tmp_path: Path, connection: Any, moment: str, day: str
) -> None:
    insert(connection, (moment, "a", "x", {}))

    for style in ("table", "markdown", "csv", "json"):
        result = cli("sessions", "--format", style)
        between = "T" if style in ("csv", "json") else " "
        assert (result.status, result.err) == (0, "")
        assert f"{day}{between}10:00:00" in result.out.replace("\\", "")
        assert f"2026-01-03{between}09:00:00" in result.out.replace("\\", "")
        result = cli("engagement", "--limit", "0", "--format", style)
        assert (result.status, result.err) == (0, "")
        assert day in result.out.replace("\\", "")
    screen = Screen(program("sessions", *cli.options), environment(), columns=80)
    assert screen.finish() == 0
    assert any(line.startswith(f"{day}   ") for line in screen.lines)
    for ending in ("png", "parquet"):
        assert cli("sessions", "--output", str(tmp_path / f"a.{ending}")).status == 0
    parquet = pytest.importorskip("pyarrow.parquet")
    kept = parquet.read_table(tmp_path / "a.parquet").column("timestamp")
    assert f"{day} 10:00:00" in str(kept)
    assert "2026-01-03 09:00:00" in str(kept)


def test_by_splits_and_fill_fills(cli: CommandLine) -> None:
    assert cli("count", "--by", "event", "--since", "2026-01-09").rows == [["2026-01-09T00:00:00+00:00", "view", "1"]]
    assert len(cli("count", "--fill").rows) == 9


def test_a_day_of_another_zone_is_shown_as_that_day(cli: CommandLine) -> None:
    assert "2026-01-01" in cli("count", "--tz", "Asia/Tokyo", "--format", "table").out


@pytest.mark.parametrize("tz", ["America/New_York", "UTC", "Asia/Tokyo"])
def test_a_date_is_that_day_in_a_column_of_dates(cli: CommandLine, db: str, tz: str) -> None:
    schema = {"id": "SERIAL PRIMARY KEY", "timestamp": "DATE", "user_id": "TEXT", "event": "TEXT"}
    with Tracker(db=db, table="days", schema=schema) as tracker:
        tracker.create_table()
        tracker.write_many({"timestamp": f"2026-01-0{day}", "user_id": "a", "event": "x"} for day in range(1, 6))
    cli.options[cli.options.index("--table") + 1] = "days"
    span = ["--since", "2026-01-02", "--until", "2026-01-04", "--tz", tz]

    days = ["2026-01-02", "2026-01-03", "2026-01-04"]
    assert [row[0] for row in cli("read", *span, "timestamp").rows] == days
    assert [row[0] for row in cli("tail", *span, "timestamp").rows] == days
    assert [row[0][:10] for row in cli("sessions", *span).rows] == days
    assert [row[0][:10] for row in cli("engagement", *span).rows] == days
    assert cli("top", *span[:4], "event").rows == [["x", "3", "1"]]


def test_a_step_has_conditions_of_its_own(cli: CommandLine) -> None:
    assert cli("funnel", "signup[metadata__plan=pro]", "purchase").rows[0][1] == "1"


@pytest.mark.parametrize(
    ("command", "hints"),
    [
        (["retention", "--first", "singup"], ["no event 'singup' in \"events\"; did you mean 'signup'?"]),
        (["retention", "--first", "singup", "--back", "singup"], ["no event 'singup' in"]),
        (["paths", "--after", "singup", "--before", "vieww"], ["no event 'singup' in", "no event 'vieww' in"]),
        (["funnel", "singup", "singup", "--where", "event=singup"], ["no event 'singup' in"]),
        (["funnel", "signup[metadata__plans=pro]"], ["no event has metadata__plans; did you mean metadata__plan?"]),
        (["funnel", "signup[metadata__plan=pro", "view"], ["signup[… is taken for the name of an event: ", "no event"]),
        (["funnel", "signup", "--by", "metadata__plans"], ["no event has metadata__plans"]),
        (["funnel", "signup", "--unit", "metadata__plans"], ["no event has metadata__plans"]),
        (["funnel", "signup", "--where", "metadata__n=many"], ["metadata__n holds numbers, and is compared with text"]),
        (["retention", "--where", "event=singup"], ["no event 'singup'; did you mean 'signup'?"]),
        (["count", "--where", "event__in=singup,vieww"], ["no event 'singup'", "no event 'vieww'"]),
        (["count", "--by", "metadata__plans"], ["no event has metadata__plans"]),
        (["sum", "metadata__plans"], ["no event has metadata__plans"]),
        (["read", "event", "metadata__plans"], ["no event has metadata__plans"]),
        (["top", "metadata__plans"], ["no event has metadata__plans"]),
        (["tail", "--where", "event=singup"], ["no event 'singup'"]),
        (["count", "--where", "user_id=nobody"], ["no event matches"]),
        (["count", "--since", "2030-01-01"], ["no event matches"]),
        (["sessions", "--since", "2030-01-01"], ["no event matches"]),
        (["sessions", "--since", "2026-01-09", "--until", "2026-01-01"], ["no event matches"]),
        (["engagement", "--since", "2030-01-01"], ["no event matches"]),
        (["funnel", "view", "signup"], []),
        (["read", "metadata__tags"], []),
        (["sum", "metadata__n", "--since", "2026-01-09"], []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_hint_comes_once(cli: CommandLine, command: list[str], hints: list[str]) -> None:
    result = cli(*command)

    assert result.status == 0
    said = result.err.splitlines()
    assert len(said) == len(hints), said
    assert all(hint in line for hint, line in zip(hints, said, strict=True)), said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["count", "--tz", "Europe/Berln"], ["--tz 'Europe/Berln'", "did you mean 'Europe/Berlin'"]),
        (["retention", "--week-start", "moonday"], ["monday, tuesday, wednesday"]),
        (["funnel", "signup", "--within", "7x"], ["--within", '"7d"']),
        (["funnel", "signup", "--unit", "org"], ["'org': there is no such column", "it has id, timestamp, user_id"]),
        (["funnel", "signup", "--by", "org"], ["'org': there is no such column", "it has id, timestamp, user_id"]),
        (["funnel", "signup", "--users", "accounts.id"], ["there is no table 'accounts'", "the tables are events"]),
        (["funnel", "signup", "--users", "events.nope"], ["there is no column 'nope'", "it has id, timestamp"]),
        (["funnel", "signup", "--users", "nope"], ["as in", "accounts_user.id"]),
        *(
            ([*command, option, "7x"], [f"{option} takes ISO 8601", "7d, 12h or 4w"])
            for command in (
                *(["read"], ["count"], ["sum", "metadata__n"], ["average", "id"], ["minimum", "id"], ["maximum", "id"]),
                *(["top"], ["catalogue"], ["funnel", "signup"], ["retention"], ["paths"]),
            )
            for option in ("--since", "--until")
        ),
        (["read", "--since", "0001-01-01", "--tz", "Asia/Tokyo"], ["--since '0001-01-01' is before the year 1 in UTC"]),
        (["engagement", "--since", "7x"], ["--since takes ISO 8601", "7d, 12h or 4w"]),
        (["maintain", "--keep", "7x"], ["keep must be an age", "400d"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_that_says_what_there_is(cli: CommandLine, command: list[str], words: list[str]) -> None:
    one_line(cli(*command), *words)


def test_engagement_from_a_day_is_the_same_when_it_is_asked_again(cli: CommandLine) -> None:
    first = cli("engagement", "--start", "2026-01-03")
    assert first.rows[0][0] == "2026-01-03T00:00:00+00:00"
    assert cli("engagement", "--start", "2026-01-03").rows == first.rows
    earlier = cli("engagement", "--start", "2026-01-01").rows
    assert (earlier[0][0], earlier[2:]) == ("2026-01-01T00:00:00+00:00", first.rows)
    again = cli("engagement", "--start", "2026-01-03")
    assert (again.status, again.err, again.rows) == (0, "", first.rows)


@pytest.mark.parametrize("tz", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_days_of_engagement_are_those_of_the_range(cli: CommandLine, tz: str) -> None:
    everything = [row[0][:10] for row in cli("engagement").rows]
    found = cli("engagement", "--since", "2026-01-02", "--until", "2026-01-02", "--tz", tz)

    assert everything == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert [row[0][:10] for row in found.rows] == ["2026-01-02"]


@pytest.mark.parametrize(
    ("command", "moments"),
    [
        ("sessions --since 2026-01-02", ["03T09"]),
        ("sessions --until 2026-01-01T10:30", ["01T10"]),
        ("sessions --since 2026-01-03 --tz America/Los_Angeles", ["03T09"]),
        ("sessions --since 2026-01-03 --tz Pacific/Pago_Pago", []),
        ("sessions --since 1h", []),
        ("tail timestamp --since 2026-01-01T12:00 --until 2026-01-05", ["01T12", "03T09"]),
        ("tail timestamp -n 1 --until 2026-01-05", ["03T09"]),
        ("tail timestamp --since 2026-01-03 --tz Pacific/Pago_Pago", ["09T09"]),
    ],
)
def test_sessions_and_tail_have_a_range_of_time(cli: CommandLine, command: str, moments: list[str]) -> None:
    found = cli(*command.split())

    assert (found.status, [row[0][8:13] for row in found.rows]) == (0, moments)


def test_what_read_writes_to_a_file_is_what_it_prints(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    result = cli("read", "event", "user_id", "--limit", "3", "--output", str(path), "--format", "csv")

    assert len(result.rows) == 3
    assert result.out == path.read_text()


@pytest.mark.parametrize("command", [["read"], ["read", "--format", "table"], ["tail", "-n"], ["sessions"]])
def test_a_limit_beyond_all_numbers_is_none(cli: CommandLine, command: list[str]) -> None:
    option = [] if command[-1] == "-n" else ["--limit"]
    few, many = cli(*command, *option, "1000"), cli(*command, *option, "9" * 30)

    assert (many.status, many.out) == (0, few.out)


def test_a_bound_is_not_given_twice(cli: CommandLine) -> None:
    condition = ("--where", "timestamp__gte=2026-01-08")

    assert len(cli("read", "event", *condition, "--until", "2026-01-31").rows) == 1
    one_line(cli("read", "event", *condition, "--since", "2026-01-01"), "--since", "timestamp__gte", status=2)
    one_line(cli("tail", *condition, "--since", "2026-01-01"), "--since", "timestamp__gte", status=2)


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("command", ["read", "tail", "count", "top"])
@pytest.mark.parametrize("kind", ["TEXT", "BIGINT"])
def test_a_range_of_time_needs_a_column_of_times(
    cli: CommandLine, connection: Any, kind: str, command: str, option: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ALTER timestamp DROP DEFAULT")
        cursor.execute(f"ALTER TABLE events ALTER timestamp TYPE {kind} USING extract(epoch FROM timestamp)::bigint")

    assert cli("tail", "event").status == 0
    one_line(cli(command, option, "2026-01-03"), "'timestamp' is not a time column", f"type {kind.lower()}")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events DROP timestamp")
    one_line(cli(command, option, "2026-01-03"), "'timestamp': there is no such column", "it has id, user_id")


@pytest.mark.parametrize("name", ["field", "period", "self"])
@pytest.mark.parametrize(
    "command", [["count"], ["top"], ["funnel", "signup"], ["retention"], ["paths"]], ids=lambda each: each[0]
)
def test_a_column_may_have_the_name_of_an_argument(
    cli: CommandLine, connection: Any, command: list[str], name: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE events ADD COLUMN {name} TEXT DEFAULT 'x'")

    result = cli(*command, "--where", f"{name}=x")

    assert (result.status, result.err) == (0, "")
    assert result.rows


@pytest.mark.parametrize("command", ["minimum", "maximum"])
def test_the_least_time_is_a_time(cli: CommandLine, command: str) -> None:
    result = cli(command, "timestamp")

    assert (result.status, result.err, len(result.rows)) == (0, "", 3)


def test_only_numbers_are_drawn(cli: CommandLine, connection: Any) -> None:
    for field in ("event", "timestamp"):
        one_line(cli("maximum", field, "--plot"), "--plot draws numbers", f"max of {field}")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events ADD COLUMN speed FLOAT8")
        cursor.execute("UPDATE events SET speed = CASE WHEN id = 4 THEN 7 ELSE 'infinity'::float8 END")

    result = cli("sum", "speed", "--plot")

    assert (result.status, result.err) == (0, "")
    assert "6┤" in result.out


@pytest.mark.parametrize("resolution", ["hour", "day", "week", "month", "year"])
def test_the_last_year_of_the_calendar_is_drawn(cli: CommandLine, connection: Any, resolution: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE events SET "timestamp" = '9999-12-31 23:30:00'""")

    for zone in ("UTC", "America/New_York"):
        result = cli("count", "--plot", "--resolution", resolution, "--tz", zone)
        assert (result.status, result.err) == (0, "")
        assert "5┤" in result.out


@pytest.mark.parametrize("night", ["2025-10-25 22:00", "2025-03-29 22:00"])
def test_each_hour_is_drawn_when_the_clocks_change(db: str, connection: Any, night: str) -> None:
    tracker = tracker_on(db)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events (\"timestamp\", event) SELECT %s::timestamp + each * interval '1 h', 'a' "
            "FROM unnest('{0,1,2,3,5}'::int[]) AS each",
            (night,),
        )

    drawn = lines_of(tracker.count(resolution="hour", tz="Europe/Berlin"))[""]

    assert [number for _, number in drawn] == [1, 1, 1, 1, 0, 1]


PLAN = """
from typing import Any
from pawprint_logging import Event

class Searched(Event, name="searched"):
    filters: dict[str, Any]
    page__size: int
    words: str
"""


def test_a_plan_may_have_objects_and_double_underscores(
    cli: CommandLine, connection: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "plan_with_objects.py").write_text(PLAN)
    monkeypatch.syspath_prepend(str(tmp_path))
    for filters in ({"color": "red"}, {"size": 3}, {}):
        insert(connection, ("2026-02-01", "a", "searched", {"filters": filters, "page__size": 3}))

    lines = cli("catalogue", "--plan", "plan_with_objects").out.splitlines()

    assert [line for line in lines if line.startswith("searched")] == [
        "searched.words: must be given, and 100% of the events lack it"
    ]


@pytest.mark.parametrize(
    ("source", "error"), [("raise ValueError('no settings')", "ValueError: no settings"), ("exit(3)", "SystemExit: 3")]
)
def test_a_plan_that_cannot_be_imported_is_one_line(
    cli: CommandLine, tmp_path: Path, monkeypatch: Any, source: str, error: str
) -> None:
    (tmp_path / "broken_plan_of_test.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))

    one_line(cli("catalogue", "--plan", "broken_plan_of_test"), "broken_plan_of_test", error)


@pytest.mark.parametrize("condition", ["metadata__n=300", "metadata__n__gt=300", "metadata__n__in=-1,2.5e3"])
def test_a_number_is_no_mistake(cli: CommandLine, condition: str) -> None:
    result = cli("read", "event", "--where", condition)

    assert (result.status, result.err) == (0, "pawprint-logging: no event matches\n")


def test_an_empty_answer_is_an_empty_chart(cli: CommandLine, tmp_path: Path) -> None:
    for command in (["retention"], ["funnel", "signup"], ["top"], ["paths"]):
        path = tmp_path / f"{command[0]}.png"
        assert cli(*command, "--output", str(path), "--where", "user_id=nobody").status == 0
        assert path.read_bytes().startswith(b"\x89PNG")
