"""How long `import pawprint_logging` takes, alone and with all public names, against the packages that it needs anyway.

CPU time is measured, which equals wall-clock time on an idle machine. All bytecode is in a cache of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.harness import Options, Row, in_turn, ratios, scratch

_PROGRAM = "import time; started = time.process_time(); {}; print(time.process_time() - started)"
NEEDED = "import psycopg2, structlog, pythonjsonlogger.json"


def _seconds(statement: str, cache: Path) -> float:
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)  # noqa: S603


def measure(options: Options) -> list[Row]:
    """Return the rows of this suite."""
    # public names are loaded on first use, so the import alone says little
    statements = (NEEDED, "import pawprint_logging", "from pawprint_logging import *")
    with scratch() as cache:
        kinds = {statement: lambda statement=statement: _seconds(statement, cache) for statement in statements}
        in_turn(kinds, 2)  # to fill the cache
        measured = in_turn(kinds, 4 * options.rounds)
    base = measured[NEEDED]
    return [
        Row(
            "import, CPU time",
            name,
            ratios(seconds, base),
            NEEDED,
            "" if name == NEEDED else "≤ 1.3",
            f"{median(seconds) * 1e3:.0f} ms",
        )
        for name, seconds in measured.items()
    ]
