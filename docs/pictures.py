"""Make the pictures of the documentation: `python docs/pictures.py`, or with the folder to put them.

Needs the extras ``[embedded,plot,web]``, the package playwright, and chromium: on the path, or named by ``CHROMIUM``.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from pawprint_logging import Statistics, Tracker
from pawprint_logging._charts import drawing
from pawprint_logging.web import app, server

HERE = Path(__file__).parent
ICON = HERE.parent / "pawprint_logging" / "web" / "static" / "icon.svg"
_PYTHON = re.compile(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", re.MULTILINE)
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
            page = browser.new_page(viewport={"width": 1200, "height": 630})
            page.set_content(card(folder / "overview.png"))
            page.screenshot(path=folder / "card.png")
            browser.close()
    finally:
        running.should_exit = True
        thread.join(10)
        opened.close()


def card(overview: Path) -> str:
    """Return the page that is photographed for those who show a link to the documentation."""
    picture = base64.b64encode(overview.read_bytes()).decode()
    sentence = summary().replace(", from", ",<br>from")
    return f"""<!doctype html><style>
        body {{ margin: 0; width: 1200px; height: 630px; overflow: hidden; background: #0b5cad; color: #fff;
            font: 600 34px/1.35 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }}
        header {{ display: flex; align-items: center; gap: 22px; padding: 44px 60px 0; font-size: 52px; }}
        header svg {{ width: 84px; height: 84px; fill: #fff; }}
        header ellipse {{ fill: #fff; }}
        p {{ margin: 18px 60px 26px; font-weight: 400; }}
        img {{ display: block; margin: 0 60px; width: 1080px; border-radius: 14px 14px 0 0; }}
        </style><header>{ICON.read_text("utf-8")}pawprint_logging</header><p>{sentence}.</p>
        <img src="data:image/png;base64,{picture}">"""


def summary() -> str:
    """Return the sentence that a package index shows."""
    return str(next(iter(_arguments_of_setup("description"))))


def _arguments_of_setup(name: str) -> Iterator[Any]:
    """Yield what setup.py says under a name, with the texts of lists."""
    for node in ast.walk(ast.parse((HERE.parent / "setup.py").read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == name:
            yield from (each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant))


def badges(folder: Path) -> None:
    """Draw what the package is for and under which license; a picture of our own asks no other host."""
    (lowest,), (license_name,) = _arguments_of_setup("python_requires"), _arguments_of_setup("license")
    said = [
        ("python", lowest.replace(">=", "") + " and newer"),
        ("postgresql", "15 to 18"),
        ("typing", "strict"),
        ("license", license_name),
    ]
    (folder / "badges.svg").write_text(_badges(said), "utf-8")


def _badges(said: Sequence[tuple[str, str]]) -> str:
    shapes, place = [], 0
    for name, value in said:
        left, right = 7 * len(name) + 14, 7 * len(value) + 14
        shapes.append(
            f'<g transform="translate({place})">'
            f'<path fill="#444c56" d="M4 0h{left - 4}v20H4a4 4 0 0 1-4-4V4a4 4 0 0 1 4-4z"/>'
            f'<path fill="#0b5cad" d="M{left} 0h{right - 4}a4 4 0 0 1 4 4v12a4 4 0 0 1-4 4h-{right - 4}z"/>'
            f'<text x="7" y="14" textLength="{left - 14}">{name}</text>'
            f'<text x="{left + 7}" y="14" textLength="{right - 14}">{value}</text></g>'
        )
        place += left + right + 6
    title = ", ".join(f"{name} {value}" for name, value in said)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{place - 6}" height="20" role="img" aria-label="{title}">'
        f'<title>{title}</title><g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        + "".join(shapes)
        + "</g></svg>\n"
    )


def shrink(folder: Path) -> None:
    """Give each picture as many colours as it needs, 256 at most: a third of the bytes."""
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            smaller = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        smaller.save(path, optimize=True)


def follow_the_tutorial(folder: Path) -> None:
    """Run the tutorial's program, and the command that draws its users, and keep the pictures."""
    program = "\n".join(map(textwrap.dedent, _PYTHON.findall((HERE / "tutorial.rst").read_text("utf-8"))))
    command = [sys.executable, "-m", "pawprint_logging", "--db", "embedded:pawprint-demo", "--table", "events", "count"]
    with tempfile.TemporaryDirectory(prefix="pictures-", dir="/tmp") as place:
        for each in (
            [sys.executable, "-c", program],
            [*command, "DISTINCT(user_id)", "--resolution", "week", "--end", "2024-03-31", "--output", "users.png"],
        ):
            subprocess.run(  # noqa: S603 - programs of this repository
                each, cwd=place, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "MPLBACKEND": "Agg"}
            )
        shutil.copy(Path(place, "retention.png"), folder / "tutorial_retention.png")
        shutil.copy(Path(place, "users.png"), folder / "users.png")


def main(folder: Path) -> None:
    """Make all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    badges(folder)
    follow_the_tutorial(folder)
    rows = sorted((row for row in shop() if row["timestamp"] < NOW), key=lambda row: row["timestamp"])
    with (
        tempfile.TemporaryDirectory(prefix="pictures-", dir="/tmp") as place,  # a socket needs a short name
        Tracker(db=f"embedded:{place}", table="events") as tracker,
    ):
        tracker.create_table()
        tracker.write_many(rows)
        draw(tracker, folder)
        photograph(tracker, folder)
    shrink(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "_static")
