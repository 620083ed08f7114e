"""The page in the browser, over HTTP and against a real table."""

from __future__ import annotations

import asyncio
import html
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from support.server import PASSWORD, Server

from pawprint_logging import ConfigurationError, Tracker, __version__
from pawprint_logging._database.reading import pages
from pawprint_logging.web import app, server
from pawprint_logging.web.address import Filter
from pawprint_logging.web.guard import COOKIE

NOW = datetime.now(timezone.utc).replace(tzinfo=None)
#: two events minutes apart, on one day at whatever time of day the tests run
NINE_DAYS_AGO = (NOW - timedelta(days=9)).replace(hour=12, minute=0)
PAGES = (
    "/",
    "/events",
    "/event?name=signup",
    "/funnel?step=signup&step=purchase",
    "/paths?after=signup",
    "/retention",
    "/sessions",
    "/users",
    "/user?id=alice",
    "/live",
)
TOKEN = "a-token-of-some-length"


def ago(**length: float) -> datetime:
    return NOW - timedelta(**length)


EVENTS: tuple[dict[str, Any], ...] = (
    {"timestamp": ago(days=40), "user_id": "bob", "event": "signup", "metadata": {"plan": "free"}},
    {"timestamp": NINE_DAYS_AGO, "user_id": "alice", "event": "signup", "metadata": {"plan": "pro", "from": {"ad": 7}}},
    {
        "timestamp": NINE_DAYS_AGO + timedelta(minutes=5),
        "user_id": "alice",
        "event": "purchase",
        "metadata": {"amount": 12},
    },
    {"timestamp": ago(days=2), "user_id": "carol", "event": "signup", "metadata": {"plan": "free"}},
    {"timestamp": ago(hours=1), "user_id": "alice", "event": "purchase", "metadata": {"amount": 30}},
)


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as made:
        made.create_table()
        yield made


@pytest.fixture
def visit(tracker: Tracker) -> Iterator[TestClient]:
    tracker.write_many(EVENTS)
    with client(tracker) as made:
        yield made


class Tags(HTMLParser):
    """Every tag of a page with its attributes, as a browser sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))


def client(tracker: Tracker, **options: Any) -> TestClient:
    return TestClient(app(tracker, **options), base_url="http://127.0.0.1:8765", follow_redirects=False)


def text_of(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


@pytest.mark.parametrize("page", PAGES)
def test_each_page_answers_without_a_problem(visit: TestClient, page: str) -> None:
    answer = visit.get(page)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert 'class="problem"' not in answer.text
    assert answer.text.rstrip().endswith("</html>")


@pytest.mark.parametrize("page", PAGES)
def test_each_page_of_an_empty_table_says_how_to_log_the_first_event(tracker: Tracker, page: str) -> None:
    with client(tracker) as empty:
        answer = empty.get(page)
    assert answer.status_code == 200
    assert "Log your first event" in answer.text
    assert 'PawprintHandler(db="postgresql://…", table="events")' in answer.text


def test_the_overview_has_the_numbers_of_the_range_against_those_before(visit: TestClient) -> None:
    said = text_of(visit.get("/").text)
    assert re.search(r"Events 4 ▲ \+300 % from 1 in the 30 days before", said)
    assert re.search(r"Users 2 ▲ \+100 % from 1 in the 30 days before", said)


def test_where_nothing_fits_no_number_has_a_line(visit: TestClient) -> None:
    assert 'class="spark"' in visit.get("/").text
    assert 'class="spark"' not in visit.get("/?event=nothing").text


def test_the_range_is_in_the_url(visit: TestClient) -> None:
    assert "Events 1 " in text_of(visit.get("/?since=24h").text)
    assert "Events 5 " in text_of(visit.get("/?since=365d").text)
    day = f"{NINE_DAYS_AGO:%Y-%m-%d}"
    assert "Events 2 " in text_of(visit.get(f"/?from={day}&until={day}").text)


def test_the_menu_of_times_ends_a_range_that_began_with_a_date(visit: TestClient) -> None:
    page = visit.get("/?from=2020-01-01").text
    assert '<option value="2020-01-01" selected>Since 2020-01-01</option>' in page
    assert '<input type="date" name="from">' in page


def test_event_and_property_are_in_the_url(visit: TestClient) -> None:
    assert "Events 2 " in text_of(visit.get("/?event=purchase").text)
    assert "Events 1 " in text_of(visit.get("/?where=metadata__plan%3Dpro").text)
    assert "Events 1 " in text_of(visit.get("/?event=purchase&where=metadata__amount__gt%3D12").text)


def test_links_keep_the_filter(visit: TestClient) -> None:
    page = visit.get("/?event=purchase&where=metadata__amount__gt%3D12&since=90d").text
    assert 'href="/retention?event=purchase&amp;where=metadata__amount__gt%3D12&amp;since=90d"' in page


def test_a_form_with_empty_fields_leads_to_the_short_url(visit: TestClient) -> None:
    answer = visit.get("/?event=&where=&since=7d&until=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?since=7d")


def test_the_chart_has_its_numbers_as_a_table(visit: TestClient) -> None:
    said = text_of(visit.get("/").text)
    label = f"{ago(days=2).day} {ago(days=2):%b}"
    assert f"{label} 0 1" in said  # purchases, then signups


def test_the_funnel_counts_users(visit: TestClient) -> None:
    said = text_of(visit.get("/funnel?step=signup&step=purchase").text)
    assert "50 % came from signup to purchase" in said


def test_a_step_that_never_happened_is_shown_and_warns_nobody(
    visit: TestClient, recwarn: pytest.WarningsRecorder
) -> None:
    for page, shown in (("/funnel?step=signup&step=nope", "nope 0 0 %"), ("/paths?after=nope", "nope")):
        answer = visit.get(page)
        assert answer.status_code == 200
        assert shown in text_of(answer.text)
    assert not recwarn


def test_the_retention_has_a_row_for_each_cohort(visit: TestClient) -> None:
    said = text_of(visit.get("/retention?period=week&since=30d").text)
    assert "First seen Users Week 1" in said


@pytest.mark.parametrize("far", ["9999-12-31", "2350-01-01", "0001-01-01"])
@pytest.mark.parametrize("page", ["/retention?period=day&tz=Asia%2FTokyo", "/retention?period=day&first=signup"])
def test_an_event_with_a_wrong_time_is_not_in_the_cohorts_of_another_time(
    tracker: Tracker, visit: TestClient, page: str, far: str
) -> None:
    said = text_of(visit.get(page).text)
    assert "First seen Users Day 1" in said
    tracker.write(timestamp=far, user_id="dora", event="signup")
    with client(tracker) as later:
        assert text_of(later.get(page).text) == said


def test_the_cohorts_end_with_the_range(tracker: Tracker, visit: TestClient) -> None:
    day = f"{NINE_DAYS_AGO:%Y-%m-%d}"
    said = text_of(visit.get(f"/retention?period=week&from={day}&until={day}").text)
    assert "First seen Users" in said
    assert "Week 1" not in said


def test_cohorts_whose_periods_have_not_begun(tracker: Tracker) -> None:
    """A client whose clock is wrong sends events of later."""
    for user, days in (("alice", -21), ("alice", -14), ("bob", 14), ("carol", 14), ("carol", 28)):
        tracker.write(timestamp=NOW + timedelta(days=days), user_id=user, event="signup")
    with client(tracker) as visit:
        page = visit.get(f"/retention?period=week&from={ago(days=30):%Y-%m-%d}&until={ago(days=-40):%Y-%m-%d}").text

    rows = [re.findall(r"<td.*?</td>", row, re.DOTALL) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)[1:]]
    shown = [["".join(text_of(cell).split()) for cell in row] for row in rows]
    assert shown == [["1", "100%", "0%", "0%"], ["2", "", "50%", ""]]
    dashed = [[place for place, cell in enumerate(row) if " open" in cell] for row in rows]
    assert dashed == [[3], [2]]


def test_paths_say_what_users_did_next(visit: TestClient) -> None:
    said = text_of(visit.get("/paths?after=signup").text)
    assert "from their first signup in this time on" in said
    assert "Step 1 From To Users signup purchase 1 signup (nothing more) 1" in said
    assert "Step 2 From To Users purchase purchase 1" in said
    said = text_of(visit.get("/paths?before=purchase&depth=1").text)
    assert "Step 1 From To Users signup purchase 1" in said


@pytest.mark.parametrize("page", ["/funnel?step=signup&step=purchase", "/paths?after=signup", "/retention"])
def test_a_page_that_chooses_its_own_events_is_not_filtered_by_one(visit: TestClient, page: str) -> None:
    said = text_of(visit.get(page).text)
    filtered = visit.get(page + ("&" if "?" in page else "?") + "event=purchase").text
    assert text_of(filtered) == said
    assert "event=purchase" not in filtered
    for condition in ("event%3Dpurchase", "event__in%3Dpurchase,login", "event__ne%3Dsignup"):
        filtered = visit.get(page + ("&" if "?" in page else "?") + f"where={condition}").text
        assert text_of(filtered) == said
    other = visit.get(page + ("&" if "?" in page else "?") + "where=metadata__event%3Dnone").text
    assert text_of(other) != said  # a property that happens to have that name is a condition like any


# -- time zones -----------------------------------------------------------------------------------------------------


@pytest.fixture
def around_midnight(tracker: Tracker) -> Iterator[TestClient]:
    """Events at 22:30 and 23:30 UTC on a day in winter: in Berlin the second is of the next day."""
    tracker.write_many(
        {"timestamp": f"2026-01-14T{hour}:30:00Z", "user_id": "alice", "event": "login"} for hour in (22, 23)
    )
    with client(tracker) as made:
        yield made


def test_a_zone_in_the_url_cuts_days_at_its_midnights(around_midnight: TestClient) -> None:
    address = "/?from=2026-01-13&until=2026-01-16"
    assert "14 Jan 2 15 Jan 0" in text_of(around_midnight.get(address).text)
    assert "14 Jan 1 15 Jan 1" in text_of(around_midnight.get(address + "&tz=Europe%2FBerlin").text)
    # a date in the address is a day of that zone too
    later = around_midnight.get("/?from=2026-01-15&until=2026-01-18&tz=Europe%2FBerlin").text
    assert "15 Jan 1 16 Jan 0" in text_of(later)


def test_a_zone_in_the_url_is_the_clock_of_each_page(around_midnight: TestClient) -> None:
    for page in ("/live?", "/user?id=alice&", "/users?", "/?from=2026-01-13&until=2026-01-16&"):
        found = around_midnight.get(f"{page}tz=Asia%2FKathmandu")
        assert "15 Jan 2026, 05:15:00" in found.text  # 23:30 in UTC
        assert "times are in Asia/Kathmandu" in found.text
    assert "14 Jan 2026, 23:30:00" in around_midnight.get("/live").text


def test_links_keep_the_zone(around_midnight: TestClient) -> None:
    page = around_midnight.get("/events?from=2026-01-13&until=2026-01-16&tz=Europe%2FBerlin").text
    assert 'href="/sessions?since=2026-01-13&amp;until=2026-01-16&amp;tz=Europe%2FBerlin"' in page


def test_sessions_and_cohorts_are_cut_in_the_zone(around_midnight: TestClient) -> None:
    address = "from=2026-01-13&until=2026-01-16&tz=Europe%2FBerlin"
    assert "14 Jan 1 15 Jan 1" in text_of(around_midnight.get(f"/sessions?{address}").text)
    assert "14 Jan 1 100 %" in text_of(around_midnight.get(f"/retention?period=day&{address}").text)
    assert "14 Jan 1 Dashed" not in text_of(around_midnight.get("/retention?period=day&from=2026-01-14").text)


def test_a_date_is_a_day_of_every_zone(db: str) -> None:
    with Tracker(db=db, table="events", schema={"timestamp": "DATE", "user_id": "TEXT", "event": "TEXT"}) as tracker:
        tracker.create_table()
        tracker.write_many({"timestamp": f"2026-01-{day}", "user_id": "alice", "event": "login"} for day in (14, 15))
        with client(tracker) as visit:
            for zone in ("UTC", "America/New_York", "Pacific/Kiritimati"):
                address = f"from=2026-01-13&until=2026-01-16&tz={quote(zone)}"
                for page in ("/", "/sessions"):
                    assert "14 Jan 1 15 Jan 1" in text_of(visit.get(f"{page}?{address}").text), (zone, page)


@pytest.mark.parametrize(
    ("period", "line"),
    [("day", "12 Jan 1 .*19 Jan 1 .*Dashed"), ("week", "12 Jan 1 .*19 Jan 1 .*Dashed"), ("month", "Jan 2026 2 .*")],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Honolulu", "Pacific/Kiritimati"])
def test_cohorts_of_a_date_begin_on_the_same_day_in_every_zone(db: str, period: str, line: str, zone: str) -> None:
    with Tracker(db=db, table="events", schema={"timestamp": "DATE", "user_id": "TEXT", "event": "TEXT"}) as tracker:
        tracker.create_table()
        tracker.write_many({"timestamp": f"2026-01-{day}", "user_id": f"u{day}", "event": "login"} for day in (12, 19))
        with client(tracker) as visit:
            address = f"period={period}&from=2026-01-02&until=2026-01-30&tz={quote(zone)}"
            assert re.search(line, text_of(visit.get(f"/retention?{address}").text))


def test_a_date_has_no_clock_that_a_zone_could_move(db: str) -> None:
    with Tracker(db=db, table="events", schema={"timestamp": "DATE", "user_id": "TEXT", "event": "TEXT"}) as tracker:
        tracker.create_table()
        tracker.write(timestamp="2026-01-14", user_id="alice", event="login")
        with client(tracker) as visit:
            for page in ("/live?", "/user?id=alice&", "/users?", "/?from=2026-01-14&until=2026-01-14&"):
                for zone in ("UTC", "America/New_York", "Pacific/Kiritimati"):
                    said = text_of(visit.get(f"{page}tz={quote(zone)}").text)
                    assert "14 Jan 2026" in said, (page, zone)
                    assert "Jan 2026," not in said, (page, zone)


#: days of 23, 23.5, 24.5 and 25 hours; midnights that do not exist, and some that come twice
ODD_DAYS = (
    ("Europe/Berlin", "2026-03-28", "2026-03-31"),
    ("Europe/Berlin", "2026-10-24", "2026-10-27"),
    ("Australia/Lord_Howe", "2026-04-03", "2026-04-07"),
    ("Australia/Lord_Howe", "2026-10-02", "2026-10-06"),
    ("America/Sao_Paulo", "2018-11-02", "2018-11-06"),
    ("America/Sao_Paulo", "2018-02-16", "2018-02-20"),
    ("America/Havana", "2026-10-30", "2026-11-03"),
    ("Atlantic/Azores", "2026-10-23", "2026-10-28"),
    ("Asia/Amman", "2021-10-27", "2021-10-31"),
    ("Asia/Kathmandu", "2026-01-01", "2026-01-04"),
    ("Pacific/Apia", "2011-12-28", "2012-01-02"),
)


@pytest.mark.parametrize(("zone", "first", "last"), ODD_DAYS)
def test_time_is_cut_where_postgresql_cuts_it(zone: str, first: str, last: str, connection: Any) -> None:
    for start, end, step in (
        (first, last, "30 minutes"),
        ("2026-01-01", "2026-12-31", "1 hour"),
        ("2019-01-01", "2026-01-01", "3 hours"),
    ):
        span = Filter(since=start, until=end, tz=zone).span()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT moment AT TIME ZONE 'UTC', date_trunc(%s, moment, %s) AT TIME ZONE 'UTC' FROM generate_series("
                " %s::timestamp AT TIME ZONE 'UTC', %s::timestamp AT TIME ZONE 'UTC', %s) AS moment",
                (span.resolution, zone, span.start, span.end - timedelta(seconds=1), step),
            )
            found = cursor.fetchall()
        stretches = span.stretches()
        assert len({begin for _, begin in found}) == len(stretches)
        for moment, begin in found:
            assert span.place(moment, stretches) == span.place(begin, stretches), (moment, begin)


@pytest.mark.parametrize(("zone", "first", "last"), ODD_DAYS)
def test_every_moment_is_in_the_stretch_that_its_time_is_cut_to(zone: str, first: str, last: str) -> None:
    for resolution in ("hour", "day", "week", "month", "year"):
        moment = datetime.fromisoformat(first)
        while moment < datetime.fromisoformat(last):
            begin = pages.floor(moment, resolution, zone)
            assert begin <= moment < pages.following(begin, resolution, zone), (moment, resolution)
            moment += timedelta(minutes=10)


def test_the_hour_between_two_midnights_is_on_the_page(tracker: Tracker) -> None:
    # in the Azores 25 October 2026 has 25 hours, and the first two of them begin at midnight
    moments = ("24T12:00", "25T00:30", "25T01:30", "26T12:00")
    tracker.write_many({"timestamp": f"2026-10-{moment}", "user_id": moment, "event": "visit"} for moment in moments)
    with client(tracker) as visit:
        for since, before in (("2026-10-25", ""), ("2026-10-24", "24 Oct 1 ")):
            address = f"from={since}&until=2026-10-27&tz=Atlantic%2FAzores"
            for page in ("/", "/sessions"):
                assert f"{before}25 Oct 2 26 Oct 1" in text_of(visit.get(f"{page}?{address}").text), (page, since)
            said = text_of(visit.get(f"/retention?period=day&{address}").text)
            assert re.search("25 Oct 2 .*26 Oct 1 ", said)


@pytest.mark.parametrize("clock", ["00:00:00", "00:00:51", "12:30:00", "22:59:59", "23:00:00", "23:59:49", "23:59:59"])
@pytest.mark.parametrize(
    ("given", "name"),
    [({"since": "24h"}, "24 hours"), ({"since": "7d"}, "7 days"), ({"since": "30d"}, "30 days")]
    + [({"since": "30d", "tz": zone}, "30 days") for zone in ("Asia/Kathmandu", "Pacific/Apia", "America/Lima")],
)
def test_a_range_has_one_name_at_every_time_of_the_day(given: dict[str, str], name: str, clock: str) -> None:
    present = datetime.fromisoformat(f"2026-11-29 {clock}")
    assert Filter(**given).span(present).name == name


@pytest.mark.parametrize(
    ("first", "last", "name"),
    [
        ("2026-03-29", "2026-03-29", "23 hours"),
        ("2026-10-25", "2026-10-25", "25 hours"),
        ("2026-03-28", "2026-03-29", "2 days"),
        ("2026-10-20", "2026-10-26", "7 days"),
        ("2024-01-01", "2026-12-31", "1,096 days"),
    ],
)
def test_the_days_of_a_range_are_those_of_the_calendar(first: str, last: str, name: str) -> None:
    assert Filter(since=first, until=last, tz="Europe/Berlin").span().name == name


@pytest.mark.parametrize(
    "address",
    [
        "/?from=9999-01-01&until=9999-12-31",
        "/?from=9999-12-31&until=9999-12-31&tz=Asia%2FTokyo",
        "/?from=9990-01-01&until=9999-12-30&tz=America%2FLima",
        "/?from=0001-01-01&until=0001-01-03&tz=Asia%2FTokyo",
        "/?from=0001-01-01&tz=America%2FLima",
        "/retention?from=0001-01-01&until=0001-01-03&tz=Asia%2FTokyo",
    ],
)
def test_the_ends_of_the_calendar_are_no_trap(visit: TestClient, address: str) -> None:
    answer = visit.get(address)
    assert answer.status_code in (200, 400)
    assert "error in this program" not in answer.text
    assert "could not be made" not in answer.text


def test_sessions_end_after_silence(visit: TestClient) -> None:
    assert "Sessions 3 of 2 users" in text_of(visit.get("/sessions").text)


def test_a_value_is_a_link_to_the_events_that_have_it(tracker: Tracker) -> None:
    odd = {
        "in": "eu", "url": "https://example.org/" + "a" * 100, "tags": ["x", "y"], "empty": "", "ends ": " x ",
        "n": 1.50, "deep": {"contains": "x", "_a": True}, "": "no name",
    }  # fmt: skip
    no_links = {"a=b": "c", "a__b": "d", "a_": {"b": "e"}, "k" * 300: "f"}
    tracker.write(timestamp=ago(hours=1), event="signup", metadata=odd | no_links)
    tracker.write(timestamp=ago(hours=1), event="signup", metadata=dict.fromkeys(odd, "other"))
    with client(tracker) as visit:
        links = re.findall(r'<a class="value" href="([^"]*)">(.*?) <span', visit.get("/event?name=signup").text)
        assert len(links) == 2 * len(odd) + 1
        for link, shown in links:
            assert "Events 1 " in text_of(visit.get(html.unescape(link)).text), shown


def test_a_user_with_spaces_around_the_id_has_a_page(tracker: Tracker) -> None:
    tracker.write_many({"timestamp": NOW, "user_id": name, "event": "signup"} for name in (" alice ", "bob"))
    with client(tracker) as visit:
        for address in re.findall(r'href="(/user\?id=[^"]*)"', visit.get("/users").text):
            assert visit.get(html.unescape(address)).status_code == 200
        assert "<code>bob</code>" in visit.get("/user?id=bob%20").text
        assert visit.get("/user?id=%20").status_code == 404


def test_an_event_shows_its_properties_with_their_values(visit: TestClient) -> None:
    page = visit.get("/event?name=signup").text
    assert "metadata__plan string 100 % 2" in text_of(page)
    assert "metadata__from__ad number 50 % 1 7" in text_of(page)
    assert "where=metadata__plan%3Dpro" in page


def test_a_user_has_a_history(visit: TestClient) -> None:
    said = text_of(visit.get("/user?id=alice").text)
    assert "Events 3" in said
    assert "amount 30" in said


def test_a_long_history_goes_on_on_another_page_and_no_event_of_the_same_time_is_left_out(tracker: Tracker) -> None:
    tracker.write_many({"timestamp": ago(minutes=n // 7), "user_id": "alice", "event": f"step {n}"} for n in range(150))
    with client(tracker) as visit:
        first = visit.get("/user?id=alice").text
        rest = re.search(r'href="(/user[^"]*before[^"]*)"', first)
        assert rest is not None
        second = visit.get(rest[1].replace("&amp;", "&")).text
    seen = [re.findall(r'class="what"><a[^>]*>(step \d+)</a>', page) for page in (first, second)]
    assert len(seen[0]) == 105
    assert sorted([*seen[0], *seen[1]]) == sorted(f"step {n}" for n in range(150))


@pytest.mark.parametrize("number", [99, 100, 101])
def test_a_long_history_ends_with_the_events_without_a_time(tracker: Tracker, number: int) -> None:
    tracker.write_many({"timestamp": ago(minutes=n), "user_id": "alice", "event": f"step {n}"} for n in range(number))
    tracker.write_many({"timestamp": None, "user_id": "alice", "event": f"step {number + n}"} for n in range(3))
    seen, link = [], "/user?id=alice"
    with client(tracker) as visit:
        for _ in range(3):
            page = visit.get(link).text
            seen += re.findall(r'class="what"><a[^>]*>(step \d+)</a>', page)
            rest = re.search(r'href="(/user[^"]*before[^"]*)"', page)
            if rest is None:
                break
            link = html.unescape(rest[1])
    assert rest is None
    assert sorted(seen) == sorted(f"step {n}" for n in range(number + 3))


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("/nothing", 404, "There is no such page"),
        ("/user?id=nobody", 404, "No such user"),
        ("/?since=yesterday-ish", 400, "since: write a time such as 2026-11-01"),
        ("/?from=2026-02-01&until=2026-01-01", 400, "ends before it begins"),
        ("/?where=nothing%3D5", 400, "there is no such column"),
        ("/?where=just-text", 400, "a condition is written FIELD=VALUE"),
        ("/?where=id%3Dten", 400, "id"),
        ("/?event=%00", 400, "NUL"),
        ("/retention?period=fortnight", 400, "take one of day, week, month"),
        ("/sessions?silence=never", 400, "take one of 5, 15"),
        ("/funnel?step=signup&within=ever", 400, "within=ever"),
        ("/user?id=alice&before=then", 400, "before: write a time"),
        ("/?since=99999999w", 400, "goes back before the year 1"),
        ("/?tz=Europe%2FBerln", 400, "did you mean"),
        ("/?tz=..%2F..%2Fetc%2Fpasswd", 400, "is not a known time zone"),
        ("/paths?depth=99", 400, "depth=99: take one of 1, 2"),
        ("/paths?after=signup&depth=-1", 400, "take one of 1, 2"),
        ("/static/nothing.css", 404, "There is no such page"),
        ("/?where=" + "x" * 3000, 400, "too many conditions, or a value that is too long"),
    ],
)
def test_a_hand_written_address_says_what_is_wrong_with_it(
    visit: TestClient, address: str, status: int, said: str
) -> None:
    answer = visit.get(address)
    assert answer.status_code == status
    assert said.lower() in text_of(answer.text).lower()
    assert "Traceback" not in answer.text


def test_a_missing_table_says_how_to_make_it(db: str) -> None:
    with Tracker(db=db, table="nowhere") as tracker, client(tracker) as visit:
        answer = visit.get("/")
    assert answer.status_code == 503
    assert "pawprint-logging create-table --table nowhere" in answer.text


def test_a_role_that_may_not_read_is_told_the_statement(server: Server, db: str, tracker: Tracker) -> None:
    role = f"reader_{db.rpartition('/')[2]}"
    server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    other = re.sub(r"//[^:]+:", f"//{role}:", db)
    try:
        with Tracker(db=other, table="events") as poor, client(poor) as visit:
            answer = visit.get("/")
    finally:
        server.execute(f"DROP ROLE {role}")
    assert answer.status_code == 503
    assert f"GRANT SELECT ON &#34;events&#34; TO &#34;{role}&#34;" in answer.text


def test_a_database_that_is_gone_is_no_traceback_and_no_password(private_server: Callable[..., Server]) -> None:
    gone = private_server()
    dsn = gone.dsn("postgres")
    gone.stop()
    with Tracker(db=dsn, table="events") as tracker, client(tracker) as visit:
        answer = visit.get("/")
    assert answer.status_code == 503
    assert "cannot be reached" in answer.text
    assert PASSWORD not in answer.text


def test_debug_mode_says_so() -> None:
    with client(Tracker()) as visit:
        answer = visit.get("/")
    assert answer.status_code == 503
    assert "debug mode" in answer.text


def test_a_table_without_users_shows_the_rest(db: str) -> None:
    with Tracker(db=db, table="events", schema={"timestamp": "TIMESTAMP", "event": "TEXT"}) as tracker:
        tracker.create_table()
        tracker.write(timestamp=ago(hours=2), event="tick")
        with client(tracker) as visit:
            page = visit.get("/")
            assert page.status_code == 200
            assert "Events 1 " in text_of(page.text)
            assert "there is no such column" in page.text
            assert visit.get("/live").status_code == 200
            assert visit.get("/event?name=tick").status_code == 200


def test_a_query_over_its_limit_is_cancelled_on_the_server_and_the_rest_is_shown(
    tracker: Tracker, connection: Any
) -> None:
    tracker.write_many(EVENTS)
    with connection.cursor() as cursor:  # a table of which some columns take their time
        cursor.execute("ALTER TABLE events RENAME TO base")
        cursor.execute(
            "CREATE FUNCTION slow(text) RETURNS text STABLE LANGUAGE plpgsql"
            " AS $$BEGIN PERFORM pg_sleep(30); RETURN $1; END$$"
        )
        cursor.execute('CREATE VIEW events AS SELECT "timestamp", slow(user_id) AS user_id, event, metadata FROM base')
    with client(tracker, time_limit=0.5) as visit:
        begin = time.monotonic()
        answer = visit.get("/")
        assert time.monotonic() - begin < 10
    said = text_of(answer.text)
    assert answer.status_code == 200
    assert "Events 4 " in said
    assert "Not done in time" in said
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        assert cursor.fetchone() == (0,)


def test_nothing_can_be_written_even_by_a_role_that_may(tracker: Tracker, connection: Any) -> None:
    tracker.write_many(EVENTS)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE seen (n int)")
        cursor.execute("ALTER TABLE events RENAME TO base")
        cursor.execute(
            "CREATE FUNCTION spy(text) RETURNS text LANGUAGE plpgsql"
            " AS $$BEGIN INSERT INTO seen VALUES (1); RETURN $1; END$$"
        )
        cursor.execute('CREATE VIEW events AS SELECT "timestamp", spy(user_id) AS user_id, event, metadata FROM base')
    with client(tracker) as visit:
        said = text_of(visit.get("/").text)
    assert "PostgreSQL refused it" in said
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM seen")
        assert cursor.fetchone() == (0,)


HOSTILE = (
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'><svg/onload=alert(1)>", "{{7*7}}", "{% raw %}",
    "javascript:alert(1)", "%s%%d", "a\r\nSet-Cookie: x=1", "../../etc/passwd", "\u202eevil", "</title><script>",
    "&lt;b&gt;",
    "x' OR 1=1 --", "\\x00", "☃" * 20, "a&b=c", "a#b?c", " ", "<!--", "]]>", "data: x\n\nevent: y",
)  # fmt: skip


def test_hostile_names_and_values_are_text_on_every_page(tracker: Tracker) -> None:
    """10,000 strings as event, user, property's name and its value."""
    rows = [
        {
            "timestamp": NOW - timedelta(seconds=n % 3000 + 30),
            "user_id": f"{HOSTILE[n % len(HOSTILE)][:24]}{n // len(HOSTILE) % 9}",
            "event": f"{HOSTILE[n * 7 % len(HOSTILE)][:56]}{n % 5}",
            "metadata": {f"{HOSTILE[n * 3 % len(HOSTILE)]}{n}": HOSTILE[n % len(HOSTILE)]},
        }
        for n in range(10_000)
    ]
    tracker.write_many(rows)
    names = [f"/event?name={quote(text[:56])}0" for text in HOSTILE]
    users = [f"/user?id={quote(text[:24])}0" for text in HOSTILE[:17]]
    with client(tracker) as visit:
        for page in (*PAGES[:8], "/live", *names, *users):
            answer = visit.get(page)
            assert answer.status_code in (200, 404), page
            tags = Tags()
            tags.feed(answer.text)
            assert not {name for name, _ in tags.seen} & {"img", "iframe", "object", "embed", "b"}
            scripts = [dict(attributes) for name, attributes in tags.seen if name == "script"]
            assert scripts == [{"src": f"/static/page.js?v={__version__}", "defer": None}]
            for _, attributes in tags.seen:
                for name, value in attributes:
                    assert not name.startswith("on")
                    assert name != "style"
                    assert not (name in ("href", "src", "action") and not str(value).startswith(("/", "#")))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_stands_in_an_address_is_text(visit: TestClient, text: str) -> None:
    for name in ("event", "where", "since", "until", "step", "id", "name", "period"):
        answer = visit.get(f"/funnel?{name}={quote(text)}")
        assert answer.status_code in (200, 303, 400)
        assert len(re.findall("<script", answer.text)) <= 1
        assert "set-cookie" not in answer.headers
        assert "\n" not in answer.headers.get("location", "")


def test_every_answer_has_a_strict_policy(visit: TestClient) -> None:
    for page in (*PAGES, "/nothing", "/static/page.css", "/?since=x"):
        headers = visit.get(page).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_no_page_names_another_host(visit: TestClient) -> None:
    for page in PAGES:
        assert not re.findall(r"""(?:src|href|action)=["'](?:https?:)?//[^"']*""", visit.get(page).text)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[::2]"])
def test_another_host_is_refused(visit: TestClient, host: str) -> None:
    answer = visit.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "signup" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765"])
def test_the_names_of_this_machine_are_answered(visit: TestClient, host: str) -> None:
    assert visit.get("/", headers={"Host": host}).status_code == 200


def test_a_host_can_be_allowed(tracker: Tracker) -> None:
    with client(tracker, hosts=["Events.example"]) as visit:
        assert visit.get("/", headers={"Host": "events.example:80"}).status_code == 200
        assert visit.get("/", headers={"Host": "other.example"}).status_code == 421


def test_another_site_is_refused(visit: TestClient) -> None:
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:8766",
        "https://127.0.0.1.evil.example",
        "http://[",
        "",
    ):
        assert visit.get("/", headers={"Origin": origin}).status_code == 403
    assert visit.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}).status_code == 403
    assert visit.get("/", headers={"Origin": "http://127.0.0.1:8765"}).status_code == 200
    assert visit.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_reads(visit: TestClient, method: str) -> None:
    answer = visit.request(method, "/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_answers_without_a_body(visit: TestClient) -> None:
    answer = visit.head("/")
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../application.py",
        "/static/%2e%2e/application.py",
        "/static/..%2fapplication.py",
        "/static//etc/passwd",
    ],
)
def test_no_file_beside_the_static_ones_can_be_had(visit: TestClient, path: str) -> None:
    answer = visit.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_mounted_it_links_below_its_place(tracker: Tracker) -> None:
    tracker.write_many(EVENTS)
    outer = Starlette(routes=[Mount("/admin/events", app(tracker))])
    with TestClient(outer, base_url="http://shop.example") as visit:
        answer = visit.get("/admin/events/")
        assert answer.status_code == 200
        links = re.findall(r'(?:href|src|action)="([^"#]*)"', answer.text)
        assert links
        assert all(link.startswith("/admin/events/") for link in links)
        assert visit.get("/admin/events/static/page.css").status_code == 200
        assert visit.get("/admin/events/retention").status_code == 200


# -- the token ------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tracker: Tracker) -> Iterator[TestClient]:
    tracker.write_many(EVENTS)
    with client(tracker, token=TOKEN) as made:
        yield made


def test_without_the_token_nothing_is_shown(guarded: TestClient) -> None:
    for page in (*PAGES, "/live/events"):
        answer = guarded.get(page)
        assert answer.status_code == 401
        assert "alice" not in answer.text.replace("/user?id=alice", "")


@pytest.mark.parametrize("has_cookie", [False, True])
def test_who_is_not_signed_in_learns_no_name(db: str, has_cookie: bool) -> None:
    """With no token, a wrong one, or an expired session; not in the title, the text or the headers."""
    with Tracker(db=db, table="secret_table") as tracker:
        tracker.create_table()
        database = db.rpartition("/")[2]
        headers = {"Cookie": f"{COOKIE}=1.abc"} if has_cookie else {}
        with client(tracker, token=TOKEN) as visit:
            answers = [visit.get(page, headers=headers) for page in (*PAGES, "/nothing", "/live/events", "/?since=x")]
            answers += [visit.get(page, headers=headers) for page in ("/static/nothing", "/static/", "/?token=wrong")]
            answers += [visit.post("/sign-in", data={"token": "wrong"}), visit.post("/", headers=headers)]
            answers += [visit.get("/", headers={"Host": "evil.example"}), visit.get("/", headers={"Origin": "null"})]
            answers += [visit.get("/", headers={"Authorization": "Bearer wrong"}), visit.request("TRACE", "/")]
            signed_in = visit.get("/", headers={"Authorization": f"Bearer {TOKEN}"})
    for answer in answers:
        assert answer.status_code in (401, 403, 404, 405, 421)
        for told in (answer.text, str(answer.headers)):
            assert not re.search(f"secret_table|{database}|{re.escape(__version__)}|127.0.0.1", told), answer.url
    assert "secret_table" in signed_in.text
    assert database in signed_in.text


def test_another_host_learns_no_name_where_there_is_no_token(visit: TestClient, db: str) -> None:
    answer = visit.get("/", headers={"Host": "evil.example"})
    assert "· events" not in answer.text
    assert db.rpartition("/")[2] not in answer.text


def test_the_link_with_the_token_signs_in_and_drops_it_from_the_address(guarded: TestClient) -> None:
    answer = guarded.get(f"/events?since=7d&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/events?since=7d")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/events").status_code == 200


def test_the_form_signs_in(guarded: TestClient) -> None:
    assert guarded.post("/sign-in", data={"token": "wrong"}).status_code == 401
    assert guarded.post("/sign-in", data={"token": TOKEN}).status_code == 303
    assert guarded.get("/").status_code == 200


def test_programs_send_the_token_as_a_bearer(guarded: TestClient) -> None:
    assert guarded.get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("cookie", ["1.abc", f"99999999999.{'0' * 64}", "x", "", "9" * 5000, "²³.x"])
def test_a_forged_or_expired_session_signs_nobody_in(guarded: TestClient, cookie: str) -> None:
    answer = guarded.get("/", headers={"Cookie": f"{COOKIE}={cookie}".encode("latin-1", "replace")})
    assert answer.status_code == 401


@pytest.mark.parametrize("other", ['prefs={"a":1}', "a b=1", 'x="un', "flag", "path=/x", "expires=never"])
def test_cookies_of_other_applications_are_no_obstacle(guarded: TestClient, other: str) -> None:
    cookie = guarded.post("/sign-in", data={"token": TOKEN}, follow_redirects=False).headers["set-cookie"]
    guarded.cookies.clear()
    assert guarded.get("/", headers={"Cookie": f"{other}; {cookie.partition(';')[0]}"}).status_code == 200


def test_an_expired_session_says_so(guarded: TestClient) -> None:
    from pawprint_logging.web.guard import _session

    old = _session(TOKEN, int(time.time()) - 1)
    answer = guarded.get("/", headers={"Cookie": f"{COOKIE}={old}"})
    assert answer.status_code == 401
    assert "The session has expired" in answer.text


def test_an_endless_sign_in_is_cut_off(guarded: TestClient) -> None:
    assert guarded.post("/sign-in", content=b"token=" + b"x" * 100_000).status_code == 401


@pytest.mark.parametrize(
    ("options", "said"),
    [({"token": "short"}, "16 characters"), ({"time_limit": 0}, "time_limit"), ({"time_limit": True}, "time_limit")],
)
def test_an_option_that_cannot_be_used_is_an_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        app(Tracker(), **options)


# -- live, and many at once -----------------------------------------------------------------------------------------


@contextmanager
def serving(page: Any) -> Iterator[int]:
    """A server in a thread; yields its port."""
    import uvicorn

    opened = server.listen("127.0.0.1", 0)
    config = uvicorn.Config(page, http=server.Bounded, ws="none", log_level="error", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[opened])))
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield opened.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(20)
        opened.close()


def test_new_events_come_by_themselves_each_once(tracker: Tracker) -> None:
    tracker.write_many(EVENTS)
    with serving(app(tracker)) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET /live/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        received = b""
        while b": nothing" not in received:
            received += connection.recv(65536)
        tracker.write(timestamp=NOW + timedelta(seconds=5), user_id="dave", event="<arrived>")
        while b"data: [" not in received:
            received += connection.recv(65536)
        line = re.search(rb"data: (\[.*\])\n", received)
        assert line is not None
        rows = json.loads(line[1])
        assert len(rows) == 1
        assert "&lt;arrived&gt;" in rows[0]
        seen = received.count(b"arrived")
        connection.settimeout(0.5)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            with suppress(TimeoutError):
                received += connection.recv(65536)
        assert received.count(b"arrived") == seen


def streamed(port: int, until: bytes, address: str = "/live/events", **headers: str) -> str:
    """Read a stream up to a text, and leave it."""
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{head}\r\n".encode())
        received = b""
        while until not in received:
            received += connection.recv(65536)
    return received.decode()


def test_events_from_before_the_stream_opens_or_reopens_come_with_it(tracker: Tracker) -> None:
    tracker.write_many(EVENTS)
    with serving(app(tracker)) as port:
        page = streamed(port, b"</html>", "/live")
        address = html.unescape(page.partition('data-stream="')[2].partition('"')[0])
        tracker.write(timestamp=NOW + timedelta(seconds=5), user_id="dave", event="in_the_gap")
        time.sleep(1.5)  # the page's answer is shared for a second
        first = streamed(port, b"in_the_gap", address)
        assert "signup" not in first

        last = first.rpartition("id: ")[2].partition("\n")[0]
        tracker.write(timestamp=ago(days=1), user_id="dave", event="late_and_between")
        time.sleep(1.5)
        again = streamed(port, b"late_and_between", address, last_event_id=last)
        assert "in_the_gap" not in again


def test_events_without_a_time_hide_no_others(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SAMPLE", 50)
    tracker.write_many([{"timestamp": None, "user_id": "bob", "event": "imported"}] * 5000)
    tracker.write(timestamp=NOW, user_id="carol", event="fresh")
    with client(tracker) as visit:
        menu, _, live = visit.get("/live").text.partition("<main")
        active = text_of(visit.get("/users").text.partition("<main")[2])
    assert '<option value="fresh">' in menu
    assert "fresh" in live
    assert "imported" not in live
    assert "carol" in active


def test_slow_connections_are_cut_and_the_page_answers_the_others(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.write_many(EVENTS)
    monkeypatch.setattr(server, "PATIENCE", 1.0)
    with serving(app(tracker)) as port:
        slow = []
        for _ in range(1000):
            try:
                one = socket.create_connection(("127.0.0.1", port), timeout=5)
                one.sendall(b"GET / HT")
                slow.append(one)
            except OSError:
                pass
        time.sleep(2)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        for one in slow:
            one.close()
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"Events" in received


def test_many_readers_of_a_page_are_one_question_to_the_database(tracker: Tracker, connection: Any) -> None:
    tracker.write_many(EVENTS)
    made = app(tracker)

    async def many() -> list[int]:
        import httpx

        transport = httpx.ASGITransport(app=made)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            answers = await asyncio.gather(*(http.get("/") for _ in range(20)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(many()) == [200] * 20
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        # the tracker's own, and the page's three
        assert cursor.fetchone()[0] <= 4
    with TestClient(made):
        pass  # which ends it


def test_the_first_piece_is_there_before_the_answers(tracker: Tracker, connection: Any) -> None:
    tracker.write_many(EVENTS)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events RENAME TO base")
        cursor.execute(
            "CREATE FUNCTION slow(text) RETURNS text STABLE LANGUAGE plpgsql"
            " AS $$BEGIN PERFORM pg_sleep(0.5); RETURN $1; END$$"
        )
        cursor.execute('CREATE VIEW events AS SELECT "timestamp", slow(user_id) AS user_id, event, metadata FROM base')
    with serving(app(tracker)) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as opened:
        opened.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while b"<h1" not in received:
            received += opened.recv(65536)
        assert b"Newest" not in received
        while chunk := opened.recv(65536):
            received += chunk
    assert b"Newest" in received


def test_a_page_begins_while_others_wait_for_slow_answers(tracker: Tracker, connection: Any) -> None:
    tracker.write_many(EVENTS)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events RENAME TO base")
        cursor.execute(
            "CREATE FUNCTION slow(text) RETURNS text STABLE LANGUAGE plpgsql"
            " AS $$BEGIN PERFORM pg_sleep(5); RETURN $1; END$$"
        )
        cursor.execute('CREATE VIEW events AS SELECT "timestamp", slow(user_id) AS user_id, event, metadata FROM base')
    with serving(app(tracker)) as port:

        def get(path: str) -> socket.socket:
            opened = socket.create_connection(("127.0.0.1", port), timeout=30)
            opened.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            return opened

        others = [get(f"/users?event=signup&where=metadata__n%3D{n}") for n in range(4)]
        others += [get(f"/retention?since={n}d") for n in (20, 21, 22)]
        time.sleep(0.5)
        begin = time.monotonic()
        with get("/sessions?since=7d") as mine:
            received = b""
            while b"<h1" not in received:
                received += mine.recv(65536)
        assert time.monotonic() - begin < 4
        for one in others:
            one.close()


# -- the command ----------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_line(tracker: Tracker, db: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pawprint_logging.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--db", db, "--table", "events", "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert said == f"pawprint-logging: cannot listen on 127.0.0.1, port {port}: it is in use; pass another --port\n"


def test_a_host_that_is_not_of_this_machine_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 203.0.113.7: .*; pass another --host"):
        server.listen("203.0.113.7", 0)


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="in use; pass another --port"),
    ):
        server.listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("example.org", False),
    ],
)
def test_loopback_needs_no_token(host: str, is_ours: bool) -> None:
    assert server.is_loopback(host) is is_ours


def test_a_connection_that_broke_while_idle_is_replaced(tracker: Tracker, connection: Any) -> None:
    tracker.write_many(EVENTS)
    with client(tracker) as visit:
        assert visit.get("/live").status_code == 200
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert visit.get("/sessions").status_code == 200


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith(("pawprint_logging.web.", "jinja2"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install \"pawprint-logging\[web\]\""):
        app(Tracker())
