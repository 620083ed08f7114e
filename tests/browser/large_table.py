"""Make a table of ten million events, for the tests that ask the page about one: `python tests/browser/large_table.py`.

    createdb large
    python tests/browser/large_table.py postgresql://localhost/large
    PAWPRINT_TEST_LARGE=postgresql://localhost/large tox -e examples -- tests/browser

The table is called ``events``, and there must be none of that name. It takes about two minutes, and 2 GB. A second
argument is another number of events. The tests only read it; it can be kept.
"""

from __future__ import annotations

import sys

from pawprint_logging import Tracker

NUMBER = 10_000_000
#: 200,000 users in 90 days; some are there often, most of them rarely; the same ones every time, but for the day
_EVENTS = """
INSERT INTO events (timestamp, user_id, event, metadata)
SELECT now() AT TIME ZONE 'UTC' - interval '90 days' * (1 - n / {number}.0),
    'user-' || floor(200000 * power(hashint8(n) / 4294967296.0 + 0.5, 2)),
    (ARRAY['view', 'view', 'view', 'view', 'view', 'search', 'search', 'signup', 'purchase', 'login'])
        [1 + (hashint8(n + 1) & 1023) % 10],
    jsonb_build_object('plan', (ARRAY['free', 'free', 'pro'])[1 + (hashint8(n + 2) & 1023) % 3],
        'page', jsonb_build_object('path', '/' || (hashint8(n + 3) & 63)), 'amount', hashint8(n + 4) & 255)
FROM generate_series(1, {number}) AS n
"""


def main(db: str, number: int = NUMBER) -> None:
    """Make it.

    Args:
        db: address of a database in which the role may make tables.
        number: of events.
    """
    with Tracker(db=db, table="events") as tracker:
        tracker.create_table()
        session = tracker.session()
        with session.transaction() as cursor:
            cursor.execute(_EVENTS.format(number=number))
            cursor.execute("ANALYZE events")
        session.close()
    print(f"{number:,} events")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
