"""One of many processes that write while old partitions go: of now, late, of days that are dropped, of random years."""

from __future__ import annotations

import json
import logging
import random
import sys
import time
from datetime import datetime, timedelta, timezone

from pawprint_logging import PawprintHandler

db, fallback_file, number, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
dice = random.Random(number)
handler = PawprintHandler(
    db=db, table="events", fallback_file=fallback_file, batch_size=20, flush_interval=0.05, close_timeout=60
)
log = logging.getLogger("retained")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(handler)
slowest = 0.0
issued = good = 0
end = time.monotonic() + seconds
while time.monotonic() < end:
    for _ in range(10):
        days = dice.choices(
            [0.0, dice.uniform(0, 45), dice.uniform(55, 80), -3.9, dice.uniform(-3e6, 7e5)], [60, 25, 5, 5, 5]
        )[0]
        try:
            moment = datetime.now(timezone.utc) - timedelta(days=days)
        except OverflowError:
            moment = datetime(9999, 1, 1, tzinfo=timezone.utc)
        kind = "good" if -4.5 < days < 49 else "old" if 0 < days < 81 else "random"
        log.info("x", extra={"event": kind, "user_id": f"u{number}", "nr": f"{number}-{issued}", "timestamp": moment})
        issued += 1
        good += kind == "good"
    started = time.monotonic()
    handler.flush(30)
    slowest = max(slowest, time.monotonic() - started)
handler.close()
stats = handler.stats
print(
    json.dumps(
        {
            "issued": issued,
            "good": good,
            "written": stats.written,
            "diverted": stats.diverted,
            "pending": stats.pending,
            "dropped": stats.dropped,
            "slowest": slowest,
        }
    )
)
