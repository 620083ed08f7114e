"""Whether an event costs the same in a full table as in an empty one."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from benchmarks import harness
from benchmarks.harness import Options, Row, ratios
from benchmarks.throughput import log
from pawprint_logging import Tracker

#: events that are logged and timed at each size
EVENTS = 50_000
SIZES = (10_000, 1_000_000)
#: only with --full: takes two minutes and 2 GB more
FULL_SIZE = 10_000_000


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite; tables of all sizes exist at once, so that their rounds can take turns."""
    sizes = (*SIZES, FULL_SIZE) if options.full else SIZES
    with ExitStack() as stack:
        server = stack.enter_context(harness.server())
        server.execute("ALTER SCHEMA public OWNER TO pawprint")
        databases = {}
        for size in sizes:
            server.execute(f"CREATE DATABASE of_{size} OWNER pawprint")
            db = databases[size] = server.dsn(f"of_{size}")
            stack.enter_context(Tracker(db=db, table="events")).create_table()
            server.execute(
                "INSERT INTO events (timestamp, user_id, event, "
                "metadata) SELECT timestamp '2024-01-01' + n * interval '1 second',"
                " 'user' || n %% 1000, 'purchase', jsonb_build_object('amount', n, 'plan', "
                "'pro') FROM generate_series(1, %s) n",
                (size,),
                dbname=f"of_{size}",
            )
            server.execute("VACUUM ANALYZE events", dbname=f"of_{size}")
        server.execute("CHECKPOINT")
        measured: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(2 * options.rounds):
            for size, db in databases.items():
                measured[size].append(log(db, EVENTS) / EVENTS)
    base = measured[SIZES[0]]
    return [
        Row(
            "cost of an event by the size of the table",
            f"{size:,} rows",
            ratios(seconds, base),
            f"{SIZES[0]:,} rows",
            "" if size == SIZES[0] else "≤ 1.2",
            f"{median(seconds) * 1e6:.2f} µs",
        )
        for size, seconds in measured.items()
    ]
