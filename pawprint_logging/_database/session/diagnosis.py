"""Why connections are lost again and again, where the error itself does not say it."""

from __future__ import annotations

from typing import Any

import psycopg2

from .connection import Session

#: seconds for each answer
_TIMEOUT = 5.0
#: seconds that a COMMIT does not wait for a standby that is there
_LONG_FOR_A_STANDBY = 1.0


def waits_for_standby(cursor: Any) -> bool:
    """Return whether a COMMIT has waited for a synchronous standby for longer than one that is there takes.

    Of others' only pg_read_all_stats sees it.
    """
    cursor.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
        "AND state_change < clock_timestamp() - make_interval(secs => %s))",
        (_LONG_FOR_A_STANDBY,),
    )
    return bool(cursor.fetchone()[0])


def pools_by_statement(session: Session) -> bool:
    """Return whether a pooler closes the connection when a transaction begins, of which libpq hands on no reason.

    A statement by itself passes.
    """
    try:
        with session.limit(_TIMEOUT), session.connection().cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.execute("BEGIN")
            cursor.execute("ROLLBACK")
    except psycopg2.Error as error:
        return "statement pooling mode" in str(error) or (
            error.pgcode is None and session.is_lost and _answers(session)
        )
    return False


def _answers(session: Session) -> bool:
    session.discard()
    try:
        with session.limit(_TIMEOUT), session.connection().cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error:
        return False
    return True
