"""Connections of every driver that `within` knows, behind one face, for tests that say the same over each."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Any

import psycopg2

from pawprint_logging import within


class Driver(ABC):
    """A connection in a transaction of the application's, not begun yet.

    Args:
        dsn: libpq URI.
    """

    #: whether the block is one of `async with`
    is_async = False
    #: what `within` gets
    connection: Any

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def sql(self, text: str) -> Any:
        """Execute a statement; return the first column of its first row, if it has rows."""

    @abstractmethod
    async def commit(self) -> None:
        """Commit the transaction."""

    @abstractmethod
    async def rollback(self) -> None:
        """Roll it back."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connection."""

    @contextlib.asynccontextmanager
    async def nested(self) -> Any:
        """Run a block in a nested transaction as the driver has them; psycopg2 has none but for the statements."""
        await self.sql("SAVEPOINT nested")
        try:
            yield
        except BaseException:
            await self.sql("ROLLBACK TO SAVEPOINT nested")
            raise
        await self.sql("RELEASE SAVEPOINT nested")

    @contextlib.asynccontextmanager
    async def block(self, *names: str, by: Any = within) -> Any:
        """Run a block of `within`."""
        if self.is_async:
            async with by(self.connection, *names):
                yield
        else:
            with by(self.connection, *names):
                yield


def _first(row: Any) -> Any:
    return None if row is None else row[0]


class Psycopg2(Driver):
    async def open(self) -> None:
        self.connection = psycopg2.connect(self.dsn)

    async def sql(self, text: str) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            return _first(cursor.fetchone()) if cursor.description is not None else None

    async def commit(self) -> None:
        self.connection.commit()

    async def rollback(self) -> None:
        self.connection.rollback()

    async def close(self) -> None:
        self.connection.close()


class Psycopg(Psycopg2):
    async def open(self) -> None:
        import psycopg

        self.connection = psycopg.connect(self.dsn, row_factory=psycopg.rows.dict_row)
        self.connection.cursor_factory = psycopg.ClientCursor

    @contextlib.asynccontextmanager
    async def nested(self) -> Any:
        with self.connection.transaction():
            yield

    async def sql(self, text: str) -> Any:
        import psycopg

        with psycopg.Cursor(self.connection, row_factory=psycopg.rows.tuple_row) as cursor:
            cursor.execute(text)
            return _first(cursor.fetchone()) if text.startswith("SELECT") else None


class PsycopgPipeline(Psycopg):
    async def open(self) -> None:
        await super().open()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self.connection.pipeline())

    async def sql(self, text: str) -> Any:
        if not text.startswith("SELECT"):
            self.connection.execute(text)  # its answer is not waited for
            return None
        return await super().sql(text)

    async def commit(self) -> None:
        self.connection.commit()
        with self.connection.pipeline() as pipeline:
            pipeline.sync()

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            self._stack.close()
        self.connection.close()


class AsyncPsycopg(Driver):
    is_async = True

    async def open(self) -> None:
        import psycopg

        self.connection = await psycopg.AsyncConnection.connect(self.dsn)

    @contextlib.asynccontextmanager
    async def nested(self) -> Any:
        async with self.connection.transaction():
            yield

    async def sql(self, text: str) -> Any:
        cursor = await self.connection.execute(text)
        return _first(await cursor.fetchone()) if text.startswith("SELECT") else None

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()

    async def close(self) -> None:
        await self.connection.close()


class AsyncPsycopgPipeline(AsyncPsycopg):
    async def open(self) -> None:
        await super().open()
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self.connection.pipeline())

    async def sql(self, text: str) -> Any:
        if not text.startswith("SELECT"):
            await self.connection.execute(text)
            return None
        return await super().sql(text)

    async def commit(self) -> None:
        await self.connection.commit()
        async with self.connection.pipeline() as pipeline:
            await pipeline.sync()

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._stack.aclose()
        await self.connection.close()


class SqlAlchemy(Driver):
    driver = "psycopg2"

    async def open(self) -> None:
        import sqlalchemy

        self.engine = sqlalchemy.create_engine(
            self.dsn.replace("postgresql://", f"postgresql+{self.driver}://"), poolclass=sqlalchemy.NullPool
        )
        self.connection = self._made()

    def _made(self) -> Any:
        return self.engine.connect()

    @contextlib.asynccontextmanager
    async def nested(self) -> Any:
        with self.connection.begin_nested():
            yield

    async def sql(self, text: str) -> Any:
        import sqlalchemy

        result = self.connection.execute(sqlalchemy.text(text))
        return _first(result.fetchone()) if result.returns_rows else None

    async def commit(self) -> None:
        self.connection.commit()

    async def rollback(self) -> None:
        self.connection.rollback()

    async def close(self) -> None:
        self.connection.close()
        self.engine.dispose()


class SqlAlchemyPsycopg(SqlAlchemy):
    driver = "psycopg"


class SqlAlchemySession(SqlAlchemy):
    def _made(self) -> Any:
        import sqlalchemy.orm

        return sqlalchemy.orm.Session(self.engine)


class SqlAlchemyAsync(Driver):
    is_async = True
    driver = "asyncpg"

    async def open(self) -> None:
        import sqlalchemy.ext.asyncio as aio

        # asyncpg calls the option otherwise, and the servers of the tests have no TLS
        url = self.dsn.replace("postgresql://", f"postgresql+{self.driver}://").split("?")[0]
        self.engine = aio.create_async_engine(url)
        self.connection = await self._made()

    async def _made(self) -> Any:
        return await self.engine.connect()

    @contextlib.asynccontextmanager
    async def nested(self) -> Any:
        async with self.connection.begin_nested():
            yield

    async def sql(self, text: str) -> Any:
        import sqlalchemy

        result = await self.connection.execute(sqlalchemy.text(text))
        return _first(result.fetchone()) if result.returns_rows else None

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.connection.close()
        await self.engine.dispose()


class SqlAlchemyAsyncSession(SqlAlchemyAsync):
    async def _made(self) -> Any:
        import sqlalchemy.ext.asyncio as aio

        return aio.AsyncSession(self.engine)


class SqlAlchemyAsyncSessionPsycopg(SqlAlchemyAsyncSession):
    driver = "psycopg"


class Django(Driver):
    async def open(self) -> None:
        import django
        from django.conf import settings

        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
        if not settings.configured:
            settings.configure(DATABASES={}, USE_TZ=True)
            django.setup()
        from urllib.parse import unquote, urlsplit

        from django.db.backends.postgresql.base import DatabaseWrapper

        parts = urlsplit(self.dsn)
        from django.db import connections

        self.connection = DatabaseWrapper(
            {
                **connections.configure_settings({"default": {"ENGINE": "django.db.backends.postgresql"}})["default"],
                "NAME": parts.path[1:],
                "USER": parts.username,
                "PASSWORD": unquote(parts.password or ""),
                "HOST": parts.hostname,
                "PORT": parts.port,
            },
            "default",
        )
        self._begin()

    def _begin(self) -> None:
        from django.db import connections, transaction

        connections["default"] = self.connection
        self._atomic = transaction.Atomic("default", savepoint=True, durable=False)
        self._atomic.__enter__()

    @contextlib.asynccontextmanager
    async def nested(self) -> Any:
        from django.db import transaction

        with transaction.atomic("default"):
            yield

    async def sql(self, text: str) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(text)
            return _first(cursor.fetchone()) if cursor.description is not None else None

    async def commit(self) -> None:
        self._atomic.__exit__(None, None, None)
        self._begin()

    async def rollback(self) -> None:
        with contextlib.suppress(Exception):
            self._atomic.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        self._begin()

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            self._atomic.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
        self.connection.close()


DRIVERS: dict[str, type[Driver]] = {
    "psycopg2": Psycopg2,
    "psycopg": Psycopg,
    "psycopg pipeline": PsycopgPipeline,
    "async psycopg": AsyncPsycopg,
    "async psycopg pipeline": AsyncPsycopgPipeline,
    "sqlalchemy psycopg2": SqlAlchemy,
    "sqlalchemy psycopg": SqlAlchemyPsycopg,
    "sqlalchemy session": SqlAlchemySession,
    "sqlalchemy asyncpg": SqlAlchemyAsync,
    "sqlalchemy async session": SqlAlchemyAsyncSession,
    "sqlalchemy async session psycopg": SqlAlchemyAsyncSessionPsycopg,
    "django": Django,
}
