"""How long `import pawprint_logging` takes, against the packages that it needs in any case: alone, and where those are there already.

In CPU time, which is the same as the clock's on an idle machine, with the bytecode of everything in a cache of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.harness import Options, Row, in_turn, ratios, scratch

_PROGRAM = "import time; started = time.process_time(); import {}; print(time.process_time() - started)"
NEEDED = "psycopg2, structlog, pythonjsonlogger.json"


def _seconds(modules: str, cache: Path) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(modules)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)  # noqa: S603


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    names = {NEEDED: NEEDED, "pawprint_logging": "pawprint_logging", "both": f"{NEEDED}, pawprint_logging"}
    with scratch() as cache:
        kinds = {name: lambda modules=modules: _seconds(modules, cache) for name, modules in names.items()}
        in_turn(kinds, 2)  # to fill the cache
        measured = in_turn(kinds, 4 * options.rounds)
    base = measured[NEEDED]
    return [
        Row("import, CPU time", name, ratios(seconds, base), NEEDED, "" if name == NEEDED else "≤ 1.3", f"{median(seconds) * 1e3:.0f} ms")
        for name, seconds in measured.items()
    ]
