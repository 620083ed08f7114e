"""The page in a real browser: a clean console, no other host, nothing for an accessibility checker to find.

Left out where there is no chromium, or no `playwright` and `axe-playwright-python`; the report says so. Ten million
events are looked at where `PAWPRINT_TEST_LARGE` is the address of a database that `large_table.py` has filled.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from pawprint_logging import Tracker
from pawprint_logging.web import app, server

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="left out: playwright is not installed")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="left out: axe-playwright-python is not there"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="left out: there is no chromium on this machine")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGES = {
    "overview": "/",
    "events": "/events",
    "event": "/event?name=purchase",
    "funnel": "/funnel?step=signup&step=view&step=purchase",
    "paths": "/paths?after=signup",
    "retention": "/retention",
    "sessions": "/sessions",
    "users": "/users",
    "user": "/user?id=user-7",
    "live": "/live",
    "filtered": "/?event=purchase&where=metadata__plan%3Dpro&since=7d",
    "zone": "/?since=7d&tz=Europe%2FBerlin",
    "nothing": "/?where=metadata__plan%3Dnone",
    "bad": "/?where=nowhere%3D1",
    "missing": "/nowhere",
}


def rows(number: int) -> Iterator[dict[str, Any]]:
    dice = random.Random(11)
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    for _ in range(number):
        yield {
            "timestamp": now - timedelta(days=45 * dice.random()),
            "user_id": f"user-{dice.randrange(300)}",
            "event": dice.choice(("view", "view", "view", "signup", "purchase", "<b>search</b>", "a name " * 7)),
            "metadata": {"plan": dice.choice(("free", "pro")), "page": {"path": f"/{dice.randrange(40)}"}},
        }


class Site:
    """A page that is served in a thread."""

    def __init__(self, tracker: Tracker) -> None:
        import uvicorn

        self._opened = server.listen("127.0.0.1", 0)
        config = uvicorn.Config(app(tracker), http=server.Bounded, ws="none", log_level="error")
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve(sockets=[self._opened])))
        self.address = f"http://127.0.0.1:{self._opened.getsockname()[1]}"

    def __enter__(self) -> Site:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._opened.close()


@pytest.fixture
def tracker(db: str) -> Iterator[Tracker]:
    with Tracker(db=db, table="events") as made:
        made.create_table()
        yield made


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


class Visit:
    """A browser's page, and what went wrong on it."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname or ""))

    def real_complaints(self, *, is_problem: bool) -> list[str]:
        # a browser logs the status of a page that says 400 or 404 on purpose
        return [each for each in self.complaints if not (is_problem and "Failed to load resource" in each)]


def in_order(browser: Any, site: Site, pages: Mapping[str, str], *, scheme: str, width: int) -> None:
    for name, path in pages.items():
        visit = Visit(browser, viewport={"width": width, "height": 844}, color_scheme=scheme)
        visit.page.goto(site.address + path)
        visit.page.wait_for_load_state("load")
        found = axe.Axe().run(visit.page)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, name
        if name != "retention":  # whose weeks are more than fit a phone, and scroll
            wide = "all => all.filter(each => each.clientWidth && each.scrollWidth > each.clientWidth + 1).length"
            assert visit.page.eval_on_selector_all("main .scroll:not(details *), main .tile, nav", wide) == 0, name
        assert visit.real_complaints(is_problem=name in ("bad", "missing", "user")) == [], name
        assert visit.hosts == {"127.0.0.1"}
        visit.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("number", [0, 10_000])
def test_every_page_is_in_order(tracker: Tracker, browser: Any, scheme: str, width: int, number: int) -> None:
    tracker.write_many(rows(number))
    with Site(tracker) as site:
        in_order(browser, site, PAGES, scheme=scheme, width=width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.skipif("PAWPRINT_TEST_LARGE" not in os.environ, reason="left out: PAWPRINT_TEST_LARGE names no database")
def test_every_page_of_ten_million_events_is_in_order(browser: Any, scheme: str, width: int) -> None:
    with Tracker(db=os.environ["PAWPRINT_TEST_LARGE"], table="events") as large, Site(large) as site:
        newest = large.query("SELECT user_id FROM events WHERE user_id IS NOT NULL ORDER BY timestamp DESC LIMIT 1")
        pages = {**PAGES, "user": "/user?id=" + quote(str(newest["user_id"][0]))}
        in_order(browser, site, pages, scheme=scheme, width=width)


def test_it_all_works_without_a_script(tracker: Tracker, browser: Any) -> None:
    tracker.write_many(rows(2000))
    with Site(tracker) as site:
        visit = Visit(browser, java_script_enabled=False)
        visit.page.goto(site.address + "/funnel")
        visit.page.locator("select[name=step]").nth(0).select_option("signup")
        visit.page.locator("select[name=step]").nth(1).select_option("purchase")
        visit.page.get_by_role("button", name="Show").click()
        assert "step=signup&step=purchase" in visit.page.url
        visit.page.get_by_text("came from signup to purchase").wait_for()
        visit.page.goto(site.address + "/")
        visit.page.get_by_text("More filters").click()
        visit.page.get_by_label("Property").fill("metadata__plan=pro")
        visit.page.get_by_role("button", name="Show").click()
        assert set(urlsplit(visit.page.url).query.split("&")) == {"since=30d", "where=metadata__plan%3Dpro"}
        visit.page.get_by_label("Remove the condition metadata__plan=pro").click()
        assert visit.page.url == site.address + "/"


def test_a_zone_can_be_chosen_from_those_that_the_browser_knows(tracker: Tracker, browser: Any) -> None:
    tracker.write_many(rows(500))
    with Site(tracker) as site:
        visit = Visit(browser, timezone_id="Asia/Kathmandu")
        visit.page.goto(site.address + "/")
        visit.page.get_by_text("More filters").click()
        offered = visit.page.eval_on_selector_all("#zones option", "all => all.map(each => each.value)")
        assert offered[:2] in (["Asia/Kathmandu", "UTC"], ["Asia/Katmandu", "UTC"])
        assert "Europe/Berlin" in offered
        visit.page.get_by_label("Time zone").fill("Europe/Berlin")
        visit.page.get_by_role("button", name="Show").click()
        visit.page.wait_for_url("**/?since=30d&tz=Europe%2FBerlin")
        assert "times are in Europe/Berlin" in visit.page.inner_text("footer")
        assert visit.complaints == []


def test_with_a_script_a_choice_takes_effect_at_once(tracker: Tracker, browser: Any) -> None:
    tracker.write_many(rows(500))
    with Site(tracker) as site:
        visit = Visit(browser)
        visit.page.goto(site.address + "/")
        visit.page.locator("select[name=since]").select_option("7d")
        visit.page.wait_for_url("**/?since=7d")
        assert visit.complaints == []


def test_a_new_event_comes_in_by_itself_as_text(tracker: Tracker, browser: Any) -> None:
    tracker.write_many(rows(200))
    with Site(tracker) as site:
        visit = Visit(browser)
        visit.page.goto(site.address + "/live")
        visit.page.get_by_text("The newest events, and each that comes.").wait_for()
        time.sleep(1.5)
        later = datetime.now(timezone.utc) + timedelta(seconds=5)
        tracker.write(timestamp=later, user_id="dave", event="<img src=x onerror=alert(1)>", metadata={"<i>": "<b>"})
        visit.page.locator("#arriving tr.new").first.wait_for()
        assert visit.page.locator("#arriving tr").first.locator(".what").inner_text() == "<img src=x onerror=alert(1)>"
        assert visit.page.locator("#arriving img, #arriving i, #arriving b").count() == 0
        assert visit.complaints == []


def test_a_name_that_is_written_from_right_to_left_leaves_what_follows_in_its_place(
    tracker: Tracker, browser: Any
) -> None:
    names = {"user_id": "u\u202e17", "event": "pay\u202epal", "metadata": {"a": "x\u202ey", "n": 12}}
    tracker.write_many([{"timestamp": datetime.now(timezone.utc) - timedelta(hours=n), **names} for n in range(9)])
    user, event = quote(names["user_id"]), quote(names["event"])
    places = {
        "/": ".feed li > a",
        f"/user?id={user}": ".plain li > *, .prop > *",
        f"/event?name={event}": ".often .value > *, .prop > *",
        "/live": ".prop > *",
        f"/funnel?step={event}&step={event}": "main h2 > bdi",
    }
    left_of_the_one_before = """all => all.filter((each, place) => {
        const before = all[place - 1];
        if (!before || before.closest("li, tr") !== each.closest("li, tr")) return false;
        const [box, other] = [each, before].map(one => one.getBoundingClientRect());
        return box.top < other.bottom && box.left < other.right - 1;
    }).map(each => each.outerHTML)"""
    with Site(tracker) as site:
        visit = Visit(browser, viewport={"width": 1280, "height": 844})
        for place, parts in places.items():
            visit.page.goto(site.address + place)
            assert visit.page.locator(parts).count() > 1, place
            assert visit.page.eval_on_selector_all(parts, left_of_the_one_before) == [], place
        visit.page.goto(site.address + "/live")
        visit.page.get_by_text("The newest events, and each that comes.").wait_for()
        time.sleep(1.5)
        tracker.write(timestamp=datetime.now(timezone.utc) + timedelta(seconds=5), **names)
        visit.page.locator("#arriving tr.new").first.wait_for()
        assert visit.page.eval_on_selector_all("tr.new .prop > *", left_of_the_one_before) == []


@pytest.mark.parametrize("width", [1280, 800, 390])
def test_long_values_hide_no_share_and_names_of_fields_are_not_broken(
    tracker: Tracker, browser: Any, width: int
) -> None:
    values = {"long": "a long name of a product, and on it goes", "word": "x" * 90, "product": "tea", "n" * 90: 1}
    moment = datetime.now(timezone.utc)
    names = ["firefox", "chrome", "safari", "opera", "vivaldi"]
    tracker.write_many(
        [{"timestamp": moment, "event": "view", "metadata": {**values, "browser": name}} for name in names]
    )
    with Site(tracker) as site:
        visit = Visit(browser, viewport={"width": width, "height": 844})
        visit.page.goto(site.address + "/event?name=view")
        out = """all => all.filter(each => {
            const box = each.getBoundingClientRect();
            const [value, whole] = [".value", ".scroll"].map(one => each.closest(one).getBoundingClientRect());
            return box.right > value.right || value.right > whole.right + 1;
        }).length"""
        assert visit.page.locator(".value > span").count() > 8
        assert visit.page.eval_on_selector_all(".value > span", out) == 0
        heights = visit.page.eval_on_selector_all(".fields th code", "all => all.map(each => each.clientHeight)")
        *short, long = sorted(heights)
        assert max(short) == min(short) < long


def test_the_numbers_in_a_legend_are_not_broken(tracker: Tracker, browser: Any) -> None:
    names = ["x" * 60, "a_name_of_some_length_without_a_space_in_it", "short"]
    moment = datetime.now(timezone.utc)
    tracker.write_many([{"timestamp": moment, "event": name} for name in names for _ in range(1000)])
    with Site(tracker) as site:
        visit = Visit(browser, viewport={"width": 390, "height": 844})
        visit.page.goto(site.address)
        sizes = "all => all.map(each => [each.clientWidth || each.offsetWidth, each.clientHeight || each.offsetHeight])"
        numbers = visit.page.eval_on_selector_all(".legend .quiet", sizes)
        assert numbers == [numbers[0]] * len(names)
        assert visit.page.eval_on_selector_all(".legend svg", sizes) == [[28, 10]] * len(names)


def test_the_first_event_ends_the_empty_page(tracker: Tracker, browser: Any) -> None:
    with Site(tracker) as site:
        visit = Visit(browser)
        visit.page.goto(site.address + "/")
        assert "Log your first event" in visit.page.inner_text("main")
        tracker.write_many(rows(3))
        visit.page.get_by_role("heading", name="Top events").wait_for(timeout=30_000)
