"""Make the pictures of the documentation: `python docs/pictures.py`, or with the folder to put them.

Needs the extras ``[embedded,plot,web]``, the package playwright, and chromium: on the path, or named by ``CHROMIUM``.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import sync_playwright

from pawprint_logging import Statistics, Tracker
from pawprint_logging._charts import drawing
from pawprint_logging.web import app, server

HERE = Path(__file__).parent
NOW = datetime.now(timezone.utc).replace(tzinfo=None)
#: name → address, colours, width and height of the window
PAGES = {
    "overview": ("/?since=30d", "light", 1200, 1000),
    "funnel": ("/funnel?step=signup&step=page_viewed&step=added_to_cart&step=purchase&since=90d", "light", 1200, 740),
    "retention": ("/retention?since=90d", "light", 1200, 850),
    "dark": ("/event?name=purchase&since=30d", "dark", 1200, 1000),
    "phone": ("/?since=30d", "dark", 390, 844),
    "live": ("/live", "light", 1200, 700),
}


def shop(users: int = 900, days: int = 90) -> Iterator[dict[str, Any]]:
    """Yield what the users of a shop did; the same every time, but for the day."""
    dice = random.Random(7)  # noqa: S311 - the same shop every time
    for number in range(users):
        moment = NOW - timedelta(days=days * dice.random() ** 1.3)
        user, plan = f"user-{number:04d}", dice.choice(("free", "free", "free", "pro", "team"))

        def event(name: str, **metadata: Any) -> dict[str, Any]:
            return {"timestamp": moment, "user_id": user, "event": name, "metadata": metadata}  # noqa: B023 - used at once

        yield event("signup", plan=plan, source=dice.choice(("search", "friend", "newsletter")))
        loyalty = dice.random()
        while moment < NOW:
            for _ in range(dice.randrange(1, 6)):
                moment += timedelta(minutes=dice.expovariate(1 / 3))
                yield event("page_viewed", page=dice.choice(("/", "/pricing", "/docs", "/shop", "/cart")))
                if dice.random() < 0.25:
                    moment += timedelta(minutes=1)
                    yield event("added_to_cart", sku=f"A{dice.randrange(40):02d}", amount=dice.randrange(5, 90))
                    if dice.random() < 0.45:
                        moment += timedelta(minutes=3)
                        yield event("purchase", amount=dice.randrange(5, 200), plan=plan)
                if dice.random() < 0.05:
                    yield event("search", results=dice.randrange(50))
            if dice.random() > 0.35 + 0.55 * loyalty:
                break
            moment += timedelta(days=dice.expovariate(1 / 4))


def draw(tracker: Tracker, folder: Path) -> None:
    """Draw the charts."""
    statistics = Statistics(tracker)
    drawing.save(tracker.count(by="event", resolution="week"), folder / "chart_series.png")
    steps = ("signup", "page_viewed", "added_to_cart", "purchase")
    drawing.save(statistics.funnel(*steps), folder / "chart_funnel.png")
    drawing.save(statistics.retention("week"), folder / "chart_retention.png")
    drawing.save(statistics.paths(after="signup", limit=6), folder / "chart_paths.png")


def photograph(tracker: Tracker, folder: Path) -> None:
    """Take pictures of the pages."""
    opened = server.listen("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(app(tracker), http=server.Bounded, ws="none", log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[opened])))
    thread.start()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    try:
        while not running.started:
            time.sleep(0.05)
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=flags)
            for name, (path, scheme, width, height) in PAGES.items():
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
                page = context.new_page()
                page.goto(f"http://127.0.0.1:{opened.getsockname()[1]}{path}")
                page.wait_for_load_state("load")
                # the machine's own address of the database says nothing to readers
                page.evaluate("document.querySelector('footer').remove()")
                page.screenshot(path=folder / f"{name}.png")
                context.close()
            browser.close()
    finally:
        running.should_exit = True
        thread.join(10)
        opened.close()


def main(folder: Path) -> None:
    """Make all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted((row for row in shop() if row["timestamp"] < NOW), key=lambda row: row["timestamp"])
    with (
        tempfile.TemporaryDirectory(prefix="pictures-", dir="/tmp") as place,  # a socket needs a short name
        Tracker(db=f"embedded:{place}", table="events") as tracker,
    ):
        tracker.create_table()
        tracker.write_many(rows)
        draw(tracker, folder)
        photograph(tracker, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "_static")
