"""One of several processes that log events with dedupe keys, half of them repeats, and others in between.

    python -m faults.programs.keyed DSN SEED PLACE PROCESSES VALUES FALLBACK

All are given the same seed, and share one list of events, in which each value is twice, in an order of chance. One in
a hundred values has an event that the table refuses beside its good one. Prints its counts as JSON.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from dataclasses import asdict

from pawprint_logging import PawprintHandler

#: one event without a key for so many that have one
EVERY = 20
BAD = {"user_id": "u" * 40}


def main() -> None:
    """Log the events of this process."""
    db, path = sys.argv[1], sys.argv[6]
    seed, place, processes, values = (int(given) for given in sys.argv[2:6])
    dice = random.Random(seed)
    some = [(value, is_repeat and dice.random() < 0.01) for value in range(values) for is_repeat in (False, True)]
    dice.shuffle(some)
    mine = some[place::processes]
    handler = PawprintHandler(
        db=db,
        table="events",
        dedupe_key="event_id",
        batch_size=500,
        flush_interval=0.05,
        overflow="block",
        write_timeout=300,  # a busy machine gives nothing up that is only late
        close_timeout=60,
        fallback_file=path,
    )
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    for number, (value, is_bad) in enumerate(mine):
        logger.info("x", extra={"event": "keyed", "event_id": value, **(BAD if is_bad else {})})
        if number % EVERY == 0:
            logger.info("x", extra={"event": "plain"})
    assert handler.flush(300)
    print(json.dumps(asdict(handler.stats)), flush=True)


if __name__ == "__main__":
    main()
