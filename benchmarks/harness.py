"""What all benchmarks share: rounds that take turns, rows of the result, a server, and a description of the machine.

A figure alone says more about the machine than about the package. So the ways that are compared take turns, round after
round, and a row holds one ratio for each round: other load on the machine falls on both sides of it.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.server import Server, find_binaries

#: packages that the report names, with their versions
PACKAGES = (
    *("pawprint-logging", "psycopg2-binary", "structlog", "python-json-logger", "orjson", "pandas", "SQLAlchemy"),
    *("loguru", "posthog", "segment-analytics-python", "opentelemetry-sdk"),
)


@dataclass
class Row:
    """One line of the result: a ratio for each round."""

    group: str
    name: str
    ratios: list[float]
    #: what the ratios compare with
    base: str
    #: the limit, with its sign: "≤ 1.6" or "≥ 0.35"; empty where there is none
    wanted: str = ""
    #: the measured figure behind the ratios
    figure: str = ""
    #: more figures, for the plots
    more: dict[str, float] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether the median round keeps the limit; None if there is none."""
        if not self.wanted or not self.ratios:
            return None
        sign, limit = self.wanted.split()
        return median(self.ratios) <= float(limit) if sign == "≤" else median(self.ratios) >= float(limit)


@dataclass
class Options:
    """How much to measure."""

    rounds: int = 5
    #: whether to also measure what takes minutes, such as a table of 10,000,000 rows
    full: bool = False


def in_turn(kinds: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each kind once per round; return what they returned, by kind and round."""
    measured: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, run in kinds.items():
            measured[name].append(run())
    return measured


def ratios(mine: list[float], base: list[float]) -> list[float]:
    """Return the ratio of each round."""
    return [one / other for one, other in zip(mine, base, strict=True)]


def percentile(ordered: list[int], part: float) -> int:
    """Return the value below which a part of the values lies, given in ascending order."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


@contextmanager
def server(version: int | None = 18, *, in_memory: bool = True, **settings: object) -> Iterator[Server]:
    """Yield a PostgreSQL server with a usual cache and no other clients.

    Args:
        version: as for `Server`, default 18.
        in_memory: as for `Server`, default True.
        **settings: more server parameters.
    """
    usual = {"shared_buffers": "128MB", "max_wal_size": "4GB", "autovacuum": "on"}
    with Server(version=version, in_memory=in_memory, settings={**usual, **settings}) as running:
        yield running


def psql() -> str:
    """Return the psql of the server's own release."""
    return str(find_binaries() / "psql")


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty directory."""
    with tempfile.TemporaryDirectory(prefix="pawprint-bench-") as directory:
        yield Path(directory)


def machine() -> dict[str, str]:
    """Return a description of the machine, and the versions of the packages."""
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def as_dict(row: Row) -> dict[str, Any]:
    """Return a row as a dict for JSON."""
    numbers = {"min": min(row.ratios), "median": median(row.ratios), "max": max(row.ratios)} if row.ratios else {}
    kept = {
        "group": row.group,
        "name": row.name,
        "base": row.base,
        "wanted": row.wanted,
        "met": row.is_met,
        "figure": row.figure,
    }
    return {**kept, **numbers, "rounds": len(row.ratios), "more": row.more}
