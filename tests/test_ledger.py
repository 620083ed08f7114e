"""The ledger tells which deliveries are in the table."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from pawprint_logging import Tracker
from pawprint_logging._database.table import ledger
from pawprint_logging._database.table.ledger import delivery_of, event_delivery, new_delivery, refused_delivery
from pawprint_logging._database.writing import claim


@pytest.fixture
def tracker(db: str) -> Tracker:
    made = Tracker(db=db, table="events")
    made.create_table()
    return made


def test_an_event_leads_back_to_its_delivery() -> None:
    delivery = new_delivery()
    assert {delivery_of(event_delivery(delivery, place)) for place in (0, 1, 50_000)} == {delivery}


def test_events_of_a_delivery_have_uuids_of_their_own() -> None:
    delivery = new_delivery()
    assert len({delivery, *(event_delivery(delivery, place) for place in range(100))}) == 101


def test_refused_events_have_another_delivery_and_always_the_same() -> None:
    delivery = new_delivery()
    assert refused_delivery(delivery) == refused_delivery(delivery) != delivery


def test_a_delivery_is_entered_once(tracker: Tracker) -> None:
    delivery = new_delivery()
    with tracker.session().transaction() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, delivery))
        assert cursor.rowcount == 1
        cursor.execute(ledger.claim_sql(tracker.layout, delivery))
        assert cursor.rowcount == 0


@pytest.mark.parametrize("may_select", [True, False])
def test_claiming_many_tells_which_are_new(tracker: Tracker, db: str, connection: Any, may_select: bool) -> None:
    deliveries = [new_delivery() for _ in range(5)]
    with connection.cursor() as cursor:
        for each in deliveries[::2]:
            cursor.execute(ledger.claim_sql(tracker.layout, each))
        if not may_select:
            cursor.execute("REVOKE SELECT ON events__deliveries FROM current_user")
    with tracker.session().transaction() as cursor:
        assert claim.claim(cursor, tracker.layout, deliveries, keep=True) == set(deliveries[1::2])


def test_claiming_nothing_is_nothing(tracker: Tracker) -> None:
    with tracker.session().transaction() as cursor:
        assert claim.claim(cursor, tracker.layout, [], keep=True) == set()


def test_asking_leaves_no_trace(tracker: Tracker, connection: Any) -> None:
    there, missing = new_delivery(), new_delivery()
    with connection.cursor() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, there))
        with tracker.session().transaction() as asking:
            assert claim.arrived(asking, tracker.layout, [there, missing]) == {there}
        cursor.execute("SELECT count(*) FROM events__deliveries")
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("commits", [True, False])
def test_asking_waits_for_a_transaction_under_way(tracker: Tracker, db: str, commits: bool) -> None:
    delivery = new_delivery()
    answers: list[set[uuid.UUID]] = []

    def ask() -> None:
        with tracker.session().transaction() as cursor:
            answers.append(claim.arrived(cursor, tracker.layout, [delivery]))

    with closing(psycopg2.connect(db)) as other, other.cursor() as cursor:
        cursor.execute(ledger.claim_sql(tracker.layout, delivery))
        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)
        assert answers == []
        other.commit() if commits else other.rollback()
        thread.join(60)
    assert answers == [{delivery} if commits else set()]


def test_old_deliveries_are_pruned_and_replayed_ones_kept(tracker: Tracker, connection: Any) -> None:
    old, young, replayed = (new_delivery() for _ in range(3))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO events__deliveries VALUES "
            "(%s, now() - interval '36 days'), (%s, now() - interval '34 days'), (%s, 'infinity')",
            [str(old), str(young), str(replayed)],
        )
        tracker.maintain()
        cursor.execute("SELECT delivery FROM events__deliveries")
        assert {uuid.UUID(row[0]) for row in cursor.fetchall()} == {young, replayed}
