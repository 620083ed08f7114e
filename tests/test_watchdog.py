"""Deadlines that are kept by one thread, which sleeps until it has to look."""

from __future__ import annotations

import threading
import time

from pawprint_logging._database.session.watchdog import Watchdog


def test_an_action_runs_when_its_time_is_up() -> None:
    rang = threading.Event()

    with Watchdog().limit(0.05, rang.set):
        assert rang.wait(60)


def test_a_block_that_ends_in_time_is_left_alone() -> None:
    rang = threading.Event()
    watchdog = Watchdog()

    with watchdog.limit(0.5, rang.set):
        pass
    with watchdog.limit(0.2, lambda: None):
        time.sleep(0.7)

    assert not rang.is_set()


def test_a_sooner_deadline_is_kept_while_the_thread_sleeps_for_a_later_one() -> None:
    rang = threading.Event()
    watchdog = Watchdog()

    with watchdog.limit(3600, lambda: None):
        time.sleep(0.05)  # it is asleep
        with watchdog.limit(0.05, rang.set):
            assert rang.wait(60)


def test_a_later_deadline_is_kept_though_it_wakes_nobody() -> None:
    rang = threading.Event()
    watchdog = Watchdog()

    with watchdog.limit(0.2, lambda: None):
        pass
    with watchdog.limit(0.4, rang.set):
        assert rang.wait(60)


def test_a_deadline_after_a_long_rest_is_kept() -> None:
    watchdog = Watchdog()
    with watchdog.limit(0.05, lambda: None):
        time.sleep(0.2)  # nothing is left to look after
    rang = threading.Event()

    with watchdog.limit(0.05, rang.set):
        assert rang.wait(60)
