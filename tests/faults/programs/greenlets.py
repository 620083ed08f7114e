"""A process patched by gevent: greenlets log and go on, while a real thread writes."""

from __future__ import annotations

import sys

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402

import gevent  # noqa: E402

from faults.programs.life import Life  # noqa: E402

life = Life.from_argument()
if life.spec["psycogreen"]:
    from psycogreen.gevent import patch_psycopg

    patch_psycopg()

handler = life.open()
gaps: list[float] = []
over = False


def heart() -> None:
    """Beats as long as the hub does not stall."""
    last = time.monotonic()
    while not over:
        gevent.sleep(0.005)
        now = time.monotonic()
        gaps.append(now - last)
        last = now


def work() -> None:
    for _ in range(100):
        life.log()
        gevent.sleep(0.001)


beating = gevent.spawn(heart)
gevent.joinall([gevent.spawn(work) for _ in range(10)])
assert handler.flush(60)
over = True
beating.join()
handler.close()
assert handler.stats.pending == 0, handler.stats
print(max(gaps))
if max(gaps) > life.spec["gap"]:
    sys.exit(f"the hub stood still for {max(gaps):.2f} s")
