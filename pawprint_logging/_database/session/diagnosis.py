"""Why connections are lost again and again, where the error itself does not say why."""

from __future__ import annotations

from typing import Any

import psycopg2

from .connection import Session

#: seconds to wait for each answer
_TIMEOUT = 5.0
#: seconds; a COMMIT waits for less if its standby is connected
_LONG_FOR_A_STANDBY = 1.0


def waits_for_standby(cursor: Any) -> bool:
    """Return whether a COMMIT has waited so long for a synchronous standby that the standby must be away.

    Without pg_read_all_stats a role sees only its own sessions.
    """
    cursor.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
        "AND state_change < clock_timestamp() - make_interval(secs => %s))",
        (_LONG_FOR_A_STANDBY,),
    )
    return bool(cursor.fetchone()[0])


def pools_by_statement(session: Session) -> bool:
    """Return whether a pooler pools by statement: it closes the connection at BEGIN, but lets single statements pass.

    libpq may not pass on the pooler's reason, so both are tried.
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
