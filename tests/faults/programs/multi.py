"""Children of multiprocessing that log and return."""

from __future__ import annotations

import multiprocessing
import sys

from faults.programs.life import Life

life = Life.from_argument()


def work(spec: dict[str, object]) -> None:
    if life.handler is None:
        life.open()
    life.log(50)


if __name__ == "__main__":
    life.open()
    life.log(20)
    context = multiprocessing.get_context(life.spec["method"])
    children = [context.Process(target=work, args=(life.spec,)) for _ in range(3)]
    for child in children:
        child.start()
        life.log(10)
    for child in children:
        child.join(60)
    codes = [child.exitcode for child in children]
    assert codes == [0, 0, 0], codes
    with context.Pool(2) as pool:
        pool.map(work, [life.spec] * 4, chunksize=1)
        pool.close()
        pool.join()
    sys.exit(0)
