"""The rows that several suites write, and the ways to write them that are not ours."""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extras

from benchmarks import harness

if TYPE_CHECKING:
    from support.server import Server

COLUMNS = ("timestamp", "user_id", "event", "metadata")
_START = datetime(2024, 1, 1)  # noqa: DTZ001 - the column has no zone


def make(number: int) -> list[dict[str, Any]]:
    """Return a number of events, as Python values."""
    return [
        {
            "timestamp": _START + timedelta(seconds=place),
            "user_id": f"user{place % 1000}",
            "event": "purchase",
            "metadata": {"amount": place, "plan": "pro", "page": "/checkout"},
        }
        for place in range(number)
    ]


def write_csv(path: Path, number: int) -> None:
    """Write the same events as COPY text, for psql."""
    with path.open("w") as file:
        file.writelines("\t".join(fields) + "\n" for fields in _texts(number))
    path.chmod(0o644)


def _texts(number: int) -> Iterator[tuple[str, ...]]:
    for row in make(number):
        yield str(row["timestamp"]), row["user_id"], row["event"], json.dumps(row["metadata"], separators=(",", ":"))


class Peers:
    """Other ways to write the rows; each empties the table first, and returns the rows per second."""

    def __init__(self, server: Server, directory: Path, number: int, table: str = "events") -> None:
        self._server = server
        self._number = number
        self.table = table
        self._file = directory / "rows.tsv"
        self._rows = make(number)
        self._connection = psycopg2.connect(server.dsn())
        write_csv(self._file, number)

    def close(self) -> None:
        self._connection.close()

    def empty(self) -> None:
        """Empty the table, and leave the server nothing to do later."""
        self._server.execute(f"TRUNCATE {self.table}")
        self._server.execute("CHECKPOINT")

    def copy(self, *, empty: bool = True) -> float:
        """Copy a ready file with psql, which is as fast as the server can take rows; empty the table first or not."""
        if empty:
            self.empty()
        command = f"\\copy {self.table} ({', '.join(COLUMNS)}) from '{self._file}'"
        started = time.perf_counter()
        subprocess.run([harness.psql(), "-X", "-q", "-c", command, self._server.dsn()], check=True)  # noqa: S603
        return self._number / (time.perf_counter() - started)

    def copy_expert(self) -> float:
        """Copy ready text in memory with psycopg2's copy_expert."""
        self.empty()
        text = io.BytesIO(self._file.read_bytes())
        started = time.perf_counter()
        with self._connection, self._connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {self.table} ({', '.join(COLUMNS)}) FROM STDIN", text)
        return self._number / (time.perf_counter() - started)

    def execute_values(self) -> float:
        """Insert 1,000 rows per statement, with psycopg2's execute_values."""
        self.empty()
        rows = ((*list(row.values())[:3], psycopg2.extras.Json(row["metadata"])) for row in self._rows)
        started = time.perf_counter()
        with self._connection, self._connection.cursor() as cursor:
            psycopg2.extras.execute_values(
                cursor, f"INSERT INTO {self.table} ({', '.join(COLUMNS)}) VALUES %s", rows, page_size=1000
            )
        return self._number / (time.perf_counter() - started)

    def one_insert_each(self, number: int = 2000) -> float:
        """Insert and commit row by row, psycopg2 in autocommit."""
        self.empty()
        places = f"INSERT INTO {self.table} ({', '.join(COLUMNS)}) VALUES (%s, %s, %s, %s)"
        connection = psycopg2.connect(self._server.dsn())
        connection.autocommit = True
        with connection.cursor() as cursor:
            started = time.perf_counter()
            for row in self._rows[:number]:
                cursor.execute(places, (*list(row.values())[:3], psycopg2.extras.Json(row["metadata"])))
            taken = time.perf_counter() - started
        connection.close()
        return number / taken

    def sqlalchemy(self, number: int = 1000) -> float:
        """Insert row by row through a SQLAlchemy engine, which is how QCaudron/pawprint writes."""
        import sqlalchemy

        self.empty()
        engine = sqlalchemy.create_engine(self._server.dsn().replace("postgresql:", "postgresql+psycopg2:"))
        metadata = sqlalchemy.MetaData()
        table = sqlalchemy.Table(self.table, metadata, autoload_with=engine)
        started = time.perf_counter()
        for row in self._rows[:number]:
            with engine.begin() as connection:
                connection.execute(table.insert().values(**row))
        taken = time.perf_counter() - started
        engine.dispose()
        return number / taken
