"""The pages: what each asks, and which template shows it."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .. import __version__
from .._database.reading import pages as questions
from .._database.reading.pages import Range, local
from ..errors import ConfigurationError
from ..tracker import Tracker
from . import data, drawing
from .address import CHOICES, BadAddressError, Filter, read_filter, url
from .data import Data
from .guard import Guard, is_admitted
from .problems import Problem, explain

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Answer = TypeVar("Answer")
#: makes the response of a page
Make = Callable[["Page"], Awaitable[Response]]

_logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
#: the menu: path and title of each page
_MENU = (
    ("", "Overview"),
    ("events", "Events"),
    ("funnel", "Funnel"),
    ("paths", "Paths"),
    ("retention", "Retention"),
    ("sessions", "Sessions"),
    ("users", "Users"),
    ("live", "Live"),
)
#: most lines in a chart, plus one for all others; most steps of a funnel
_MOST_LINES = 6
_MOST_STEPS = 8
#: seconds that looking up the menu of events may take; after that, the page goes without it
_QUICK = 1.0
#: most live pages at once; seconds between two queries; seconds after which the browser reconnects
_MOST_LIVE, _LOOK, _LIVE = 50, 1.0, 100.0
_WITHIN = {"": "any time", "1h": "1 hour", "1d": "1 day", "7d": "7 days", "30d": "30 days"}
_WITHIN_SECONDS = {"1h": 3600.0, "1d": 86_400.0, "7d": 604_800.0, "30d": 2_592_000.0}
#: most periods side by side
_MOST_PERIODS = 14
_PERIODS = ("day", "week", "month")
_SILENCES = ("5", "15", "30", "60", "120")
_DEPTHS = ("1", "2", "3", "4", "5")
#: most turns listed for a step of the paths
_MOST_TURNS = 10
_NEWEST_FEW, _NEWEST, _HISTORY = 8, 50, 100


def build(tracker: Tracker, *, hosts: Iterable[str] | None, token: str | None, time_limit: float) -> ASGIApp:
    """Return the application.

    Raises:
        ConfigurationError: an argument cannot be used.
    """
    if not isinstance(tracker, Tracker):
        raise ConfigurationError(f"app() takes a Tracker, not a {type(tracker).__name__}")
    if token is not None and len(token) < 16:
        raise ConfigurationError("token is too short to keep anybody out: take one of 16 characters or more")
    if isinstance(time_limit, bool) or not isinstance(time_limit, (int, float)) or not 0 < time_limit <= 3600:
        raise ConfigurationError(f"time_limit must be a number of seconds above 0, up to 3600, not {time_limit!r}")
    pages = Pages(tracker, float(time_limit))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        pages.data.close()

    routes = [*pages.routes(), Mount("/static", StaticFiles(directory=_HERE / "static"))]
    inner = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: pages.http_error, Exception: pages.crash}
    )
    return Guard(inner, hosts=hosts, token=token, refuse=pages.refusal)


class Page:
    """What a template knows of the request that it answers.

    Args:
        pages: all pages.
        request: the request.
        place: the path of the page.
        own: the page's own parameters, which its links keep, and the default of each.
    """

    def __init__(self, pages: Pages, request: Request, place: str, own: Mapping[str, str] | None = None) -> None:
        self.pages = pages
        self.request = request
        self.place = place
        self.root = str(request.scope.get("root_path", ""))
        #: whether the visitor may see the names of the table and the database
        self.is_admitted = is_admitted(request.scope)
        self.table = pages.tracker.table if self.is_admitted else None
        #: whether to send what is rendered so far, because the rest takes time
        self.is_due = False
        self.filter = Filter()
        self.span: Range | None = None
        self.names: list[str] = []
        self.own = [
            (name, value)
            for name, default in (own or {}).items()
            for value in request.query_params.getlist(name)
            if value and value != default
        ]

    @property
    def range(self) -> Range:
        """The time range of the page."""
        assert self.span is not None  # a page is made only after it is known
        return self.span

    def chosen(self, name: str, default: str, choices: Collection[str]) -> str:
        """Return a parameter that takes one of a few values.

        Raises:
            BadAddressError: it has another value.
        """
        value = self.request.query_params.get(name, default)
        if value not in choices:
            raise BadAddressError(f"{name}={value}: take one of {', '.join(filter(None, choices))}")
        return value

    def flush(self) -> str:
        """Have what is rendered so far sent; return nothing to render."""
        self.is_due = True
        return ""

    def link(self, path: str = "", *, keep: bool = True, **own: Any) -> str:
        """Return the address of a page, by default with the filter."""
        pairs = self.filter.query if keep else []
        return url(self.root, path, [*pairs, *((name, str(value)) for name, value in own.items() if value is not None)])

    def with_filter(self, **changes: Any) -> str:
        """Return the address of this page with another filter."""
        return url(self.root, self.place, [*replace(self.filter, **changes).query, *self.own])

    def also(self, condition: str) -> str:
        """Return the address of this page with one more condition."""
        return self.with_filter(where=(*self.filter.where, condition))

    def without(self, condition: str) -> str:
        """Return the address of this page without one of its conditions."""
        return url(self.root, self.place, [*self.filter.without(condition).query, *self.own])

    def static(self, name: str) -> str:
        """Return the address of a file of the package."""
        return f"{self.root}/static/{name}" + (f"?v={__version__}" if self.is_admitted else "")

    def moment(self, moment: date | None) -> str:
        """Return a time in the filter's time zone; a date is the same in every zone."""
        if moment is None:
            return "\N{EN DASH}"
        if not isinstance(moment, datetime):
            return f"{moment.day} {moment:%b %Y}"
        shown = local(moment, self.filter.tz)
        return f"{shown.day} {shown:%b %Y, %H:%M:%S}"

    def label(self, moment: datetime, resolution: str) -> str:
        """Return the label of a period."""
        return drawing.label(local(moment, self.filter.tz), resolution)

    def chart(self, span: Range, values: Sequence[tuple[str, Sequence[float]]]) -> drawing.Chart:
        """Return a chart over a time range."""
        beginnings = [local(moment, span.zone) for moment in span.stretches()]
        return drawing.chart(beginnings, values, span.resolution, is_over=span.is_over)

    async def ask(
        self,
        question: Callable[..., Any],
        chosen: Filter,
        *arguments: Hashable,
        keep: float = data.KEEP,
        **named: Any,
    ) -> Any:
        """Return the answer to a question, or the `Problem` that prevents it.

        Args:
            question: takes a view of the table, the conditions of the filter, and the arguments.
            chosen: the filter.
            *arguments: its further arguments.
            keep: seconds for which the answer is shared.
            **named: its keyword arguments.
        """
        try:
            given = chosen.conditions(event_field=self.pages.tracker.event_field)
            return await self.pages.data.ask(
                (question, chosen, arguments, tuple(named.items())),
                lambda view: question(view, given, *arguments, **named),
                keep=keep,
            )
        except Exception as error:
            return await self.pages.problem(error)

    def asking(
        self, question: Callable[..., Any], chosen: Filter, *arguments: Hashable, **named: Any
    ) -> asyncio.Future[Any]:
        """Start to look up a question; a template waits for the answer where it shows it."""
        return asyncio.ensure_future(self.ask(question, chosen, *arguments, **named))

    def counting(self, chosen: Filter, span: Range) -> asyncio.Future[Any]:
        """Start to count by event, and to draw the counts."""

        async def counted() -> Any:
            found = await self.ask(questions.by_event, chosen, span)
            return found if isinstance(found, Problem) else _Counted(found, self, span)

        return asyncio.ensure_future(counted())


class Pages:
    """Every page of one table.

    Args:
        tracker: the tracker on it.
        time_limit: seconds that a query may take.
    """

    def __init__(self, tracker: Tracker, time_limit: float) -> None:
        self.tracker = tracker
        self.data = Data(tracker, time_limit=time_limit)
        self._live = 0
        self.templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            enable_async=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters.update(
            number=drawing.number, percent=drawing.percent, duration=drawing.duration, iso=_iso
        )
        self.templates.globals.update(
            menu=_MENU,
            choices=CHOICES,
            version=__version__,
            wait=_wait,
            change=drawing.change,
            spark=drawing.spark,
            ratios=drawing.ratios,
            database=repr(tracker).partition("'")[2].partition("'")[0],
            fields=tracker.layout.fields,
        )
        self.templates.tests["problem"] = lambda value: isinstance(value, Problem)

    # -- the pages -----------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return the pages with their addresses."""
        return [
            self._route("", self.overview),
            self._route("events", self.events),
            self._route("event", self.event, own={"name": ""}),
            self._route("funnel", self.funnel, own={"step": "", "within": ""}, has_event=False),
            self._route("paths", self.paths, own={"after": "", "before": "", "depth": "3"}, has_event=False),
            self._route("retention", self.retention, own={"period": "week", "first": "", "back": ""}, has_event=False),
            self._route("sessions", self.sessions, own={"silence": "30"}),
            self._route("users", self.users),
            self._route("user", self.user, own={"id": ""}),
            self._route("live", self.live),
            self._route("live/events", self.stream),
        ]

    def _route(self, place: str, make: Make, *, own: Mapping[str, str] | None = None, has_event: bool = True) -> Route:
        """Return the route of a page, with the checks that all pages share.

        Args:
            place: the path.
            make: makes the response, once the address is understood and the table is known to have an event.
            own: parameters of this page, and the default of each.
            has_event: whether the filter may choose an event; if not, the page chooses events itself.
        """

        async def answer(request: Request) -> Response:
            page = Page(self, request, place, own)
            try:
                return await self._open(page, has_event=has_event) or await make(page)
            except Exception as error:
                return await self._problem_page(page, error)

        return Route(f"/{place}", answer)

    async def _open(self, page: Page, *, has_event: bool) -> Response | None:
        """Read the filter from the address and check the table; return a response if the page cannot be shown.

        Raises:
            BadAddressError: the address cannot be understood.
            ConfigurationError: the filter cannot be asked of this table.
            psycopg2.Error: the table cannot be read.
        """
        given = page.request.query_params
        if any(not value for _, value in given.multi_items()):
            kept = [(name, value) for name, value in given.multi_items() if value]
            return RedirectResponse(url(page.root, page.place, kept), 303)
        page.filter = read_filter(given, given.getlist("where"))
        if not has_event:
            page.filter = page.filter.without_event(self.tracker.event_field)
        span = page.filter.span()
        if any("\0" in value for _, value in given.multi_items()):
            raise BadAddressError("PostgreSQL has no texts with NUL in them")
        if not await self.data.ask(("probe",), questions.probe, keep=5.0, is_quick=True):
            return _Rendered(self.templates.get_template("first.html"), {"page": page}, 200)
        conditions = page.filter.conditions(event_field=self.tracker.event_field)
        await self.data.ask(
            ("filter", page.filter), lambda view: view.where(conditions).params, keep=600.0, is_quick=True
        )
        page.span = span
        page.names = await self._names()
        return None

    async def overview(self, page: Page) -> Response:
        """Show the range's numbers against the range before, a series by event, top events, and the newest ones."""
        chosen, span = page.filter, page.range
        return self._stream(
            page,
            "overview.html",
            counted=page.counting(chosen, span),
            users=page.asking(questions.users, chosen, span),
            newest=page.asking(questions.newest, chosen, _NEWEST_FEW, span.end, span.zone),
        )

    async def events(self, page: Page) -> Response:
        """Show which events there are."""
        return self._stream(page, "events.html", counted=page.counting(page.filter, page.range))

    async def event(self, page: Page) -> Response:
        """Show one event with its properties."""
        name = page.request.query_params.get("name")
        if name is None:
            return RedirectResponse(page.link("events"), 303)
        chosen, span = replace(page.filter, event=name), page.range
        return self._stream(
            page,
            "event.html",
            name=name,
            counted=page.counting(chosen, span),
            users=page.asking(questions.users, chosen, span),
            properties=page.asking(questions.properties, chosen, span),
            newest=page.asking(questions.newest, chosen, _NEWEST_FEW, span.end, span.zone),
        )

    async def funnel(self, page: Page) -> Response:
        """Show how many users came to each step."""
        steps = tuple(page.request.query_params.getlist("step")[:_MOST_STEPS])
        within = page.chosen("within", "", _WITHIN)
        seconds = _WITHIN_SECONDS.get(within)
        return self._stream(
            page,
            "funnel.html",
            steps=steps,
            within=within,
            choices_within=_WITHIN,
            found=page.asking(data.funnel, page.filter, page.range, steps, seconds) if steps else None,
            most=_MOST_STEPS,
        )

    async def paths(self, page: Page) -> Response:
        """Show what users did next."""
        after, before = (page.request.query_params.get(name) for name in ("after", "before"))
        depth = page.chosen("depth", "3", _DEPTHS)
        return self._stream(
            page,
            "paths.html",
            after=after,
            before=before,
            depth=depth,
            depths=_DEPTHS,
            most=_MOST_TURNS,
            found=page.asking(
                data.paths, page.filter, page.range, after=after, before=before, depth=int(depth), most=_MOST_TURNS
            ),
        )

    async def retention(self, page: Page) -> Response:
        """Show how many users came back."""
        period = page.chosen("period", "week", _PERIODS)
        first, back = (page.request.query_params.get(name) for name in ("first", "back"))

        async def cohorts() -> Any:
            found = await page.ask(data.retention, page.filter, page.range, period, first=first, back=back)
            if isinstance(found, Problem):
                return found
            shares = [each / numbers[0] for _, numbers, _ in found if numbers[0] for each in numbers[1:] if each]
            width = max((len(numbers) for _, numbers, _ in found), default=0)
            return min(width, _MOST_PERIODS), found, max(shares, default=1.0)

        return self._stream(
            page,
            "retention.html",
            period=period,
            periods=_PERIODS,
            chosen_names={"first": first, "back": back},
            found=asyncio.ensure_future(cohorts()),
        )

    async def sessions(self, page: Page) -> Response:
        """Show how many sessions there were, and how long they lasted."""
        silence = page.chosen("silence", "30", _SILENCES)
        span = page.range

        async def sessions() -> Any:
            found = await page.ask(questions.sessions, page.filter, span, float(silence) * 60)
            return found if isinstance(found, Problem) else (found, page.chart(span, [("sessions", found.values)]))

        return self._stream(
            page,
            "sessions.html",
            silence=silence,
            silences=_SILENCES,
            found=asyncio.ensure_future(sessions()),
            names_of_lengths=_names_of_lengths(),
        )

    async def users(self, page: Page) -> Response:
        """Show the users of the newest events, and a form to find any other."""
        return self._stream(page, "users.html", found=page.asking(questions.active_users, page.filter))

    async def user(self, page: Page) -> Response:
        """Show one user's history."""
        name = page.request.query_params.get("id", "")
        before = page.request.query_params.get("before")
        if not name:
            return RedirectResponse(page.link("users"), 303)
        try:
            moment = None if before is None else datetime.fromisoformat(before)
        except ValueError:
            raise BadAddressError("before: write a time such as 2026-11-01T12:00:00") from None
        person = await page.ask(questions.person, Filter(), name)
        if person is None and name.strip() not in ("", name):  # pasted with a space
            name = name.strip()
            person = await page.ask(questions.person, Filter(), name)
        if isinstance(person, Problem) and person.status != 504:
            return self._problem(page, person)
        if person is None:
            problem = Problem(404, "No such user", "There is no event of this user. User ids are case-sensitive.")
            return self._problem(page, problem)
        history = page.asking(questions.history, page.filter, name, moment, _HISTORY)
        return self._stream(page, "user.html", name=name, person=person, history=history, most=_HISTORY, before=before)

    async def live(self, page: Page) -> Response:
        """Show the newest events, and new ones as they arrive."""
        newest = await page.ask(questions.newest, page.filter, _NEWEST, None, keep=_LOOK)
        shown = None if isinstance(newest, Problem) else _marks(newest)
        return self._stream(page, "live.html", newest=newest, shown=shown)

    async def stream(self, page: Page) -> Response:
        """Send events as they arrive, each as a row of the page's table."""
        if self._live >= _MOST_LIVE:
            return Response("too many live pages are open; close one\n", 503, {"Retry-After": "30"})
        return StreamingResponse(
            self._arriving(page), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _arriving(self, page: Page) -> AsyncIterator[str]:
        row_of = self.templates.get_template("row.html")
        # A browser that reconnects sends the last id, which covers more than what the page began with.
        seen = page.request.headers.get("last-event-id") or page.request.query_params.get("shown")
        told = None
        end = time.monotonic() + _LIVE
        self._live += 1
        try:
            yield "retry: 2000\n\n"
            while (begin := time.monotonic()) < end:
                found = await page.ask(questions.newest, page.filter, _NEWEST, None, keep=_LOOK * 0.9)
                if isinstance(found, Problem):
                    yield f"event: problem\ndata: {json.dumps(found.headline + '. ' + found.text)}\n\n"
                else:
                    known = None if seen is None else set(seen.split("-"))
                    new = [] if known is None else [row for row in found if _mark(row) not in known]
                    seen = _marks(found)
                    rows = [await row_of.render_async(row=row, page=page, is_new=True) for row in new]
                    head = "" if seen == told else f"id: {seen}\n"
                    told = seen
                    yield head + (f"data: {json.dumps(rows)}\n\n" if rows else ": nothing\n\n")
                # a table without an index that finds its newest rows is queried less often
                await asyncio.sleep(max(_LOOK, 5 * (time.monotonic() - begin)))
        finally:
            self._live -= 1

    # -- what they share -------------------------------------------------------------------------------------------

    async def _names(self) -> list[str]:
        try:
            return await self.data.ask(
                ("names",), questions.names, keep=60.0, limit=min(_QUICK, self.data.time_limit), is_quick=True
            )
        except Exception:  # a page without this menu is better than none
            return []

    async def problem(self, error: BaseException) -> Problem:
        """Return what to tell a reader about an error."""
        return await asyncio.to_thread(explain, error, self.tracker, self.data.time_limit)

    async def _problem_page(self, page: Page, error: BaseException) -> Response:
        return self._problem(page, await self.problem(error))

    def _problem(self, page: Page, problem: Problem, template: str = "problem.html") -> Response:
        # parameters that cannot be read must not be in the links
        page.filter, page.span, page.own = (page.filter if problem.status != 400 else Filter()), None, []
        return _Rendered(self.templates.get_template(template), {"page": page, "problem": problem}, problem.status)

    def refusal(self, request: Request, status: int, headline: str, text: str) -> Response:
        """Return the page for a request that the guard refuses."""
        page = Page(self, request, "")
        return self._problem(page, Problem(status, headline, text), "sign_in.html" if status == 401 else "problem.html")

    async def http_error(self, request: Request, error: Exception) -> Response:
        """Return the page for an address that does not exist, or a request that cannot be served."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        problem = Problem(404, "There is no such page", "The menu lists all pages.")
        if status != 404:
            problem = Problem(status, "This cannot be done here", "The menu lists all pages.")
        return self._problem(Page(self, request, "none"), problem)

    async def crash(self, request: Request, error: Exception) -> Response:
        """Return the page for an unexpected error."""
        return self._problem(Page(self, request, "none"), await self.problem(error))

    def _stream(self, page: Page, template: str, **context: Any) -> Response:
        return StreamingResponse(
            self._parts(page, template, context), media_type="text/html", headers={"X-Accel-Buffering": "no"}
        )

    async def _parts(self, page: Page, template: str, context: dict[str, Any]) -> AsyncIterator[str]:
        """Yield a page in a few pieces: what is known at once, then the rest as it arrives."""
        held: list[str] = []
        try:
            async for piece in self.templates.get_template(template).generate_async(page=page, **context):
                held.append(piece)
                if page.is_due:
                    page.is_due = False
                    yield "".join(held)
                    held.clear()
        except Exception:  # too late for an error status: say it in the page, rather than break off
            _logger.exception("the page %s could not be finished", template)
            held.append("<p>The rest of this page could not be made; the log of the server says why.</p>")
        finally:
            for each in context.values():
                if isinstance(each, asyncio.Future):
                    each.cancel()
        yield "".join(held)


class _Rendered(HTMLResponse):
    """A page without queries; it is rendered when it is sent, because templates are asynchronous."""

    def __init__(self, template: Any, context: dict[str, Any], status: int) -> None:
        self._template = template
        self._context = context
        super().__init__("", status)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.body = self.render(await self._template.render_async(**self._context))
        self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


class _Counted:
    """Counts by event, and the chart of them."""

    def __init__(self, found: questions.ByEvent, page: Page, span: Range) -> None:
        self.found = found
        named = [(name if name is not None else "(no name)", values) for name, _, _, values in found.events]
        lines: list[tuple[str, list[int]]] = named[:_MOST_LINES]
        if len(named) > _MOST_LINES:
            others = [sum(each) for each in zip(*(values for _, values in named[_MOST_LINES:]), strict=True)]
            lines.append((f"{found.number - _MOST_LINES:,} others", others))
        self.chart = page.chart(span, lines)
        self.greatest = max((count for _, count, _, _ in found.events), default=0)


async def _wait(answer: asyncio.Future[Answer]) -> Answer:
    """Await an answer for a template, which cannot say `await` itself."""
    return await answer


def _mark(row: questions.Row) -> str:
    return f"{zlib.crc32(row.key.encode()):08x}"


def _marks(rows: Iterable[questions.Row]) -> str:
    """Return which events a live page shows, for an address or a header; never empty."""
    return "-".join(map(_mark, rows)) or "-"


def _iso(moment: date | None) -> str:
    return "" if moment is None else moment.isoformat()


def _names_of_lengths() -> list[str]:
    bounds = [drawing.duration(each) for each in questions.LENGTHS]
    middle = [f"{low} to {high}" for low, high in itertools.pairwise(bounds)]
    return [f"under {bounds[0]}", *middle, f"{bounds[-1]} or more"]
