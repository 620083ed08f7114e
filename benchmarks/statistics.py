"""How fast the statistics are, against an older release of the package: `python -m benchmarks.statistics --old PATH`.

Two tables on a server with usual settings have the same events, five to a session. The old release and this one take
turns, each call in an interpreter of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import psycopg2

from benchmarks import harness

_CALL = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pawprint_logging import Statistics, Tracker
statistics = Statistics(Tracker(db=sys.argv[2], table=sys.argv[3]))
started = time.perf_counter()
getattr(statistics, sys.argv[4])(*sys.argv[5:])
print(time.perf_counter() - started)
"""

#: sessions of five events, two minutes apart, at random times; a quarter of the users makes half of them
FILL = """
INSERT INTO {table} (timestamp, user_id, event, metadata)
SELECT moment, 'user-' || member, (ARRAY['open', 'look', 'search', 'buy', 'close'])[1 + step], '{{"plan": "pro"}}'
FROM (
    SELECT '2026-01-01'::timestamp + at + step * interval '2 minutes' AS moment, member, step
    FROM (
        SELECT (random() ^ 2 * {users})::int AS member, {start} + random() * interval '{span}' AS at
        FROM generate_series(1, {sessions})
    ) AS session, generate_series(0, 4) AS step
    ORDER BY 1
) AS log
"""

#: method, its arguments, what the ratio may be at most, and how many events are added before the call
CALLS = (
    ("sessions", (), "≤ 0.6", 0),
    ("sessions", (), "≤ 0.25", 10_000),
    ("engagement", (), "≤ 0.4", 0),
    ("engagement", (), "≤ 0.1", 1_000),
    ("retention", ("month",), "≤ 0.1", 0),
    ("funnel", ("open", "search", "buy"), "≤ 0.7", 0),
)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, help="by default one for 50 events")
    parser.add_argument("--old", required=True, help="the folder that holds the older release's package")
    options = parser.parse_args()
    roots = {"old": options.old, "new": str(Path(__file__).parents[1])}
    with harness.server() as server:
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        for name, root in roots.items():
            call(root, server.dsn(), name, "tracker.create_table")
        connection = psycopg2.connect(server.dsn())
        connection.autocommit = True
        cursor = connection.cursor()
        users = options.users or options.events // 50

        def fill(events: int, start: str, span: str) -> None:
            cursor.execute("SELECT setseed(0.5)")
            cursor.execute(FILL.format(table="old", users=users, sessions=events // 5, start=start, span=span))
            cursor.execute("SELECT coalesce(max(id), 0) FROM new")
            done = cursor.fetchone()[0]  # type: ignore[index]
            cursor.execute(
                "INSERT INTO new SELECT nextval('new_id_seq'), timestamp, user_id, event, metadata"
                " FROM old WHERE id > %s ORDER BY id",
                (done,),
            )

        fill(options.events, "interval '0'", "90 days")
        for name in roots:
            cursor.execute(f"VACUUM ANALYZE {name}")
        for number, (method, arguments, wanted, news) in enumerate(CALLS):
            if news:
                fill(news, f"interval '90 days {number} hours'", "1 hour")
            seconds = {name: call(root, server.dsn(), name, method, *arguments) for name, root in roots.items()}
            what = f"{method}, {news:,} more" if news else method
            ratio = seconds["new"] / seconds["old"]
            print(f"{what:30} {seconds['old']:8.2f} s {seconds['new']:8.2f} s {ratio:6.2f} {wanted}", flush=True)
        connection.close()


def call(root: str, dsn: str, table: str, method: str, *arguments: str) -> float:
    """Call a method of a release's statistics in an interpreter of its own; return how many seconds it took."""
    code = _CALL
    if method == "tracker.create_table":
        code = _CALL.replace("getattr(statistics, sys.argv[4])", "statistics.tracker.create_table")
    command = [sys.executable, "-c", code, root, dsn, table, method, *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)  # noqa: S603


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s in all")
