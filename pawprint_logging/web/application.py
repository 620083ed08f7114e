"""The pages: what each asks, and which template shows it."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
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
from ..errors import ConfigurationError
from ..tracker import Tracker
from . import data, drawing
from .address import CHOICES, BadAddressError, Filter, Span, read_filter, url
from .data import Data, View
from .guard import Guard
from .problems import Problem, explain

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Answer = TypeVar("Answer")

_logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent
#: pages of the menu
_MENU = (
    ("", "Overview"),
    ("events", "Events"),
    ("funnel", "Funnel"),
    ("retention", "Retention"),
    ("sessions", "Sessions"),
    ("users", "Users"),
    ("live", "Live"),
)
#: names of events in a menu of the filter, and lines in a chart
_MOST_LINES = 6
_MOST_STEPS = 8
#: seconds that the menu of events may take: the page does not wait for it any longer
_QUICK = 1.0
#: live pages at once, seconds between two looks, and after which the browser connects anew
_MOST_LIVE, _LOOK, _LIVE = 50, 1.0, 100.0
_WITHIN = {"": "any time", "1h": "1 hour", "1d": "1 day", "7d": "7 days", "30d": "30 days"}
_WITHIN_SECONDS = {"1h": 3600.0, "1d": 86_400.0, "7d": 604_800.0, "30d": 2_592_000.0}
#: periods beside each other
_MOST_PERIODS = 14
_PERIODS = ("day", "week", "month")
_SILENCES = ("5", "15", "30", "60", "120")
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

    routes = [
        Route("/", pages.overview),
        Route("/events", pages.events),
        Route("/event", pages.event),
        Route("/funnel", pages.funnel),
        Route("/retention", pages.retention),
        Route("/sessions", pages.sessions),
        Route("/users", pages.users),
        Route("/user", pages.user),
        Route("/live", pages.live),
        Route("/live/events", pages.stream),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]
    inner = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: pages.http_error, Exception: pages.crash}
    )
    return Guard(inner, hosts=hosts, token=token, refuse=pages.refusal)


class Page:
    """What a template knows of the request that it answers.

    Args:
        pages: all of them.
        request: the request.
        place: the page of the menu.
    """

    def __init__(self, pages: Pages, request: Request, place: str) -> None:
        self.pages = pages
        self.request = request
        self.place = place
        self.root = str(request.scope.get("root_path", ""))
        #: whether what was made so far is to go out, since what follows takes time
        self.is_due = False
        self.filter = Filter()
        self.span: Span | None = None
        self.names: list[str] = []
        #: parameters of the page itself, which its links keep
        self.own: list[tuple[str, str]] = []

    def flush(self) -> str:
        """Send what there is."""
        self.is_due = True
        return ""

    def link(self, path: str = "", *, keep: bool = True, **own: Any) -> str:
        """Return the address of a page, with the filter."""
        pairs = self.filter.query if keep else []
        return url(self.root, path, [*pairs, *((name, str(value)) for name, value in own.items() if value is not None)])

    def with_filter(self, **changes: Any) -> str:
        """Return the address of this page with another filter."""
        return url(self.root, self.place, [*replace(self.filter, **changes).query, *self.own])

    def also(self, condition: str) -> str:
        """Return the address of this page with one more condition."""
        return self.with_filter(where=(*self.filter.where, condition))

    def without(self, condition: str) -> str:
        """Return the address of this page with a condition less."""
        return url(self.root, self.place, [*self.filter.without(condition).query, *self.own])

    def static(self, name: str) -> str:
        """Return the address of a file of the package."""
        return f"{self.root}/static/{name}?v={__version__}"

    async def ask(self, name: str, question: Callable[[View], Answer], *key: Any, keep: float = data.KEEP) -> Any:
        """Return the answer to a question, or the `Problem` that stands in its way."""
        try:
            return await self.pages.data.ask((name, *key), question, keep=keep)
        except Exception as error:
            return await self.pages.problem(error)

    def asking(self, name: str, question: Callable[[View], Answer], *key: Any) -> asyncio.Future[Any]:
        """Begin to look a question up; a template waits for the answer where it shows it."""
        return asyncio.ensure_future(self.ask(name, question, *key))


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
            number=drawing.number, percent=drawing.percent, duration=drawing.duration, moment=_moment, iso=_iso
        )
        self.templates.globals.update(
            menu=_MENU,
            choices=CHOICES,
            version=__version__,
            wait=_wait,
            change=drawing.change,
            spark=drawing.spark,
            label=drawing.label,
            table=tracker.table,
            database=repr(tracker).partition("'")[2].partition("'")[0],
            fields=tracker.layout.fields,
        )
        self.templates.tests["problem"] = lambda value: isinstance(value, Problem)

    # -- the pages -----------------------------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        """Show the numbers of the range against those before, a series by event, top events, and the newest ones."""
        page, answer = await self._open(request, "")
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        chosen, span = page.filter, page.span

        async def by_event() -> Any:
            found = await page.ask("by_event", lambda view: data.by_event(view, chosen, span), chosen, span)
            return found if isinstance(found, Problem) else _Counted(found, span, self._is_over(span))

        return self._stream(
            page,
            "overview.html",
            counted=asyncio.ensure_future(by_event()),
            users=page.asking("users", lambda view: data.users(view, chosen, span), chosen, span),
            newest=page.asking("few", lambda view: data.newest(view, chosen, _NEWEST_FEW, span.end), chosen, span),
        )

    async def events(self, request: Request) -> Response:
        """Show which events there are."""
        page, answer = await self._open(request, "events")
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        chosen, span = page.filter, page.span

        async def by_event() -> Any:
            found = await page.ask("by_event", lambda view: data.by_event(view, chosen, span), chosen, span)
            return found if isinstance(found, Problem) else _Counted(found, span, self._is_over(span))

        return self._stream(page, "events.html", counted=asyncio.ensure_future(by_event()))

    async def event(self, request: Request) -> Response:
        """Show one event with its properties."""
        name = request.query_params.get("name", "")
        page, answer = await self._open(request, "event", own=[("name", name)] if name else [])
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        if not name:
            return RedirectResponse(page.link("events"), 303)
        chosen, span = replace(page.filter, event=name), page.span

        async def by_event() -> Any:
            found = await page.ask("by_event", lambda view: data.by_event(view, chosen, span), chosen, span)
            return found if isinstance(found, Problem) else _Counted(found, span, self._is_over(span))

        return self._stream(
            page,
            "event.html",
            name=name,
            counted=asyncio.ensure_future(by_event()),
            users=page.asking("users", lambda view: data.users(view, chosen, span), chosen, span),
            properties=page.asking("properties", lambda view: data.properties(view, chosen, span), chosen, span),
            newest=page.asking("few", lambda view: data.newest(view, chosen, _NEWEST_FEW, span.end), chosen, span),
        )

    async def funnel(self, request: Request) -> Response:
        """Show how many users came to each step."""
        given = request.query_params
        steps = [step for step in given.getlist("step") if step][:_MOST_STEPS]
        within = given.get("within", "")
        own = [("step", step) for step in steps] + ([("within", within)] if within else [])
        page, answer = await self._open(request, "funnel", own=own)
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        if within not in _WITHIN:
            return await self._problem_page(page, BadAddressError(f"within={within}: take one of {', '.join(_WITHIN)}"))
        chosen, span = page.filter, page.span
        seconds = _WITHIN_SECONDS.get(within)
        found: Any = None
        if steps:
            found = page.asking(
                "funnel",
                lambda view: data.funnel(view, steps, seconds, chosen, span),
                tuple(steps),
                within,
                chosen,
                span,
            )
        return self._stream(
            page, "funnel.html", steps=steps, within=within, choices_within=_WITHIN, found=found, most=_MOST_STEPS
        )

    async def retention(self, request: Request) -> Response:
        """Show how many users came back."""
        period = request.query_params.get("period", "week")
        first, back = request.query_params.get("first"), request.query_params.get("back")
        own = [("period", period)] if period != "week" else []
        own += [(name, value) for name, value in (("first", first), ("back", back)) if value]
        page, answer = await self._open(request, "retention", own=own)
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        if period not in _PERIODS:
            return await self._problem_page(
                page, BadAddressError(f"period={period}: take one of {', '.join(_PERIODS)}")
            )
        chosen, span = page.filter, page.span

        async def cohorts() -> Any:
            found = await page.ask(
                "retention",
                lambda view: data.retention(view, period, chosen, span, first=first, back=back),
                period,
                first,
                back,
                chosen,
                span,
            )
            if isinstance(found, Problem):
                return found
            shares = [each / numbers[0] for _, numbers in found if numbers[0] for each in numbers[1:] if each]
            width = max((len(numbers) for _, numbers in found), default=0)
            return min(width, _MOST_PERIODS), found, max(shares, default=1.0)

        return self._stream(
            page,
            "retention.html",
            period=period,
            periods=_PERIODS,
            chosen_names={"first": first, "back": back},
            found=asyncio.ensure_future(cohorts()),
        )

    async def sessions(self, request: Request) -> Response:
        """Show how many sessions there were, and how long they took."""
        silence = request.query_params.get("silence", "30")
        page, answer = await self._open(request, "sessions", own=[("silence", silence)] if silence != "30" else [])
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        if silence not in _SILENCES:
            return await self._problem_page(
                page, BadAddressError(f"silence={silence}: take one of {', '.join(_SILENCES)} minutes")
            )
        chosen, span = page.filter, page.span

        async def sessions() -> Any:
            found = await page.ask(
                "sessions",
                lambda view: data.sessions(view, float(silence) * 60, chosen, span),
                silence,
                chosen,
                span,
            )
            if isinstance(found, Problem):
                return found
            drawn = drawing.chart(
                span.stretches(), [("sessions", found.values)], span.resolution, is_over=self._is_over(span)
            )
            return found, drawn

        return self._stream(
            page,
            "sessions.html",
            silence=silence,
            silences=_SILENCES,
            found=asyncio.ensure_future(sessions()),
            names_of_lengths=_names_of_lengths(),
        )

    async def users(self, request: Request) -> Response:
        """Show the users of the newest events, and a way to any other."""
        page, answer = await self._open(request, "users")
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        chosen = replace(page.filter)
        return self._stream(
            page,
            "users.html",
            found=page.asking("active_users", lambda view: data.active_users(view, chosen), chosen),
        )

    async def user(self, request: Request) -> Response:
        """Show one user's history."""
        name = request.query_params.get("id", "").strip()
        before = request.query_params.get("before")
        page, answer = await self._open(request, "user", own=[("id", name)])
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        if not name:
            return RedirectResponse(page.link("users"), 303)
        try:
            moment = None if before is None else datetime.fromisoformat(before)
        except ValueError:
            return await self._problem_page(page, BadAddressError("before: write a time such as 2026-11-01T12:00:00"))
        chosen = page.filter
        person = await page.ask("person", lambda view: data.person(view, name), name)
        if isinstance(person, Problem) and person.status != 504:
            return self._problem(page, person)
        if person is None:
            problem = Problem(
                404, "Nobody of that name", "There is no event of this user. Names are told apart by case."
            )
            return self._problem(page, problem)
        history = page.asking(
            "history", lambda view: data.history(view, name, chosen, moment, _HISTORY + 1), name, chosen, moment
        )
        return self._stream(page, "user.html", name=name, person=person, history=history, most=_HISTORY, before=before)

    async def live(self, request: Request) -> Response:
        """Show the newest events, and those that come."""
        page, answer = await self._open(request, "live")
        if answer is not None or page.span is None:
            return answer or await self._first_event(page)
        chosen = page.filter
        newest = await page.ask("newest", lambda view: data.newest(view, chosen, _NEWEST), chosen, keep=_LOOK)
        return self._stream(page, "live.html", newest=newest)

    async def stream(self, request: Request) -> Response:
        """Send events as they come, each as a row of the table."""
        page, answer = await self._open(request, "live")
        if answer is not None:
            return answer
        if self._live >= _MOST_LIVE:
            return Response("too many live pages are open; close one\n", 503, {"Retry-After": "30"})
        return StreamingResponse(
            self._arriving(page), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _arriving(self, page: Page) -> AsyncIterator[str]:
        chosen = page.filter
        row_of = self.templates.get_template("row.html")
        seen: set[str] | None = None
        end = time.monotonic() + _LIVE
        self._live += 1
        try:
            yield "retry: 2000\n\n"
            while (begin := time.monotonic()) < end:
                found = await page.ask(
                    "newest", lambda view: data.newest(view, chosen, _NEWEST), chosen, keep=_LOOK * 0.9
                )
                if isinstance(found, Problem):
                    yield f"event: problem\ndata: {json.dumps(found.headline + '. ' + found.text)}\n\n"
                else:
                    new = [] if seen is None else [row for row in found if row.key not in seen]
                    seen = {row.key for row in found}
                    rows = [await row_of.render_async(row=row, page=page, is_new=True) for row in new]
                    yield f"data: {json.dumps(rows)}\n\n" if rows else ": nothing\n\n"
                # a table whose newest rows no index finds is looked at less often
                await asyncio.sleep(max(_LOOK, 5 * (time.monotonic() - begin)))
        finally:
            self._live -= 1

    # -- what they share -------------------------------------------------------------------------------------------

    async def _open(
        self, request: Request, place: str, own: list[tuple[str, str]] | None = None
    ) -> tuple[Page, Response | None]:
        """Return the page, and an answer instead of it where the table cannot be read, or the URL.

        The page has no span if there is no event yet.
        """
        page = Page(self, request, place)
        page.own = own or []
        given = request.query_params
        if any(not value for _, value in given.multi_items()):
            kept = [(name, value) for name, value in given.multi_items() if value]
            return page, RedirectResponse(url(page.root, place, kept), 303)
        try:
            page.filter = read_filter(given, given.getlist("where"))
            span = page.filter.span()
            if any("\0" in value for _, value in given.multi_items()):
                raise BadAddressError("PostgreSQL has no texts with NUL in them")
            chosen = page.filter
            has_any = await self.data.ask(("probe",), data.probe, keep=5.0, is_quick=True)
            if has_any:
                await self.data.ask(
                    ("filter", chosen), lambda view: view.where(chosen).params, keep=600.0, is_quick=True
                )
                page.span = span
                page.names = await self._names()
        except Exception as error:
            return page, await self._problem_page(page, error)
        return page, None

    async def _names(self) -> list[str]:
        try:
            return await self.data.ask(
                ("names",), data.names, keep=60.0, limit=min(_QUICK, self.data.time_limit), is_quick=True
            )
        except Exception:  # a menu is missed less than a page
            return []

    @staticmethod
    def _is_over(span: Span) -> bool:
        from .address import following

        stretches = span.stretches()
        return bool(stretches) and following(stretches[-1], span.resolution) <= span.end

    async def problem(self, error: BaseException) -> Problem:
        """Return what to tell a reader about an error."""
        return await asyncio.to_thread(explain, error, self.tracker, self.data.time_limit)

    async def _problem_page(self, page: Page, error: BaseException) -> Response:
        return self._problem(page, await self.problem(error))

    def _problem(self, page: Page, problem: Problem, template: str = "problem.html") -> Response:
        # what cannot be read must not stand in the links
        page.filter, page.span, page.own = (page.filter if problem.status != 400 else Filter()), None, []
        return _Rendered(self.templates.get_template(template), {"page": page, "problem": problem}, problem.status)

    async def _first_event(self, page: Page) -> Response:
        return _Rendered(self.templates.get_template("first.html"), {"page": page}, 200)

    def refusal(self, request: Request, status: int, headline: str, text: str) -> Response:
        """Return the page that says no, before anything was asked."""
        page = Page(self, request, "")
        return self._problem(page, Problem(status, headline, text), "sign_in.html" if status == 401 else "problem.html")

    async def http_error(self, request: Request, error: Exception) -> Response:
        """Return the page for an address that is none."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        problem = Problem(404, "There is no such page", "The menu has all there are.")
        if status != 404:
            problem = Problem(status, "This cannot be done here", "The menu has all there is.")
        return self._problem(Page(self, request, "none"), problem)

    async def crash(self, request: Request, error: Exception) -> Response:
        """Return the page for a mistake of ours."""
        return self._problem(Page(self, request, "none"), await self.problem(error))

    def _stream(self, page: Page, template: str, **context: Any) -> Response:
        return StreamingResponse(
            self._parts(page, template, context), media_type="text/html", headers={"X-Accel-Buffering": "no"}
        )

    async def _parts(self, page: Page, template: str, context: dict[str, Any]) -> AsyncIterator[str]:
        """Yield a page in a few pieces: as far as it is known, then the rest as it comes."""
        held: list[str] = []
        try:
            async for piece in self.templates.get_template(template).generate_async(page=page, **context):
                held.append(piece)
                if page.is_due:
                    page.is_due = False
                    yield "".join(held)
                    held.clear()
        except Exception:  # the status has gone out: what is left is to say so, and not to break off
            _logger.exception("the page %s could not be finished", template)
            held.append("<p>The rest of this page could not be made; the log of the server says why.</p>")
        finally:
            for each in context.values():
                if isinstance(each, asyncio.Future):
                    each.cancel()
        yield "".join(held)


class _Rendered(HTMLResponse):
    """A page that asks nothing: rendered when it is sent, as the templates are asynchronous."""

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

    def __init__(self, found: data.ByEvent, span: Span, is_over: bool) -> None:
        self.found = found
        named = [(name if name is not None else "(no name)", values) for name, _, _, values in found.events]
        lines: list[tuple[str, list[int]]] = named[:_MOST_LINES]
        if len(named) > _MOST_LINES:
            others = [sum(each) for each in zip(*(values for _, values in named[_MOST_LINES:]), strict=True)]
            lines.append((f"{found.number - _MOST_LINES:,} others", others))
        self.chart = drawing.chart(span.stretches(), lines, span.resolution, is_over=is_over)
        self.greatest = max((count for _, count, _, _ in found.events), default=0)


async def _wait(answer: asyncio.Future[Answer]) -> Answer:
    """Return an answer, once it is there: templates cannot say `await`."""
    return await answer


def _moment(moment: datetime | None) -> str:
    return "\N{EN DASH}" if moment is None else f"{moment.day} {moment:%b %Y, %H:%M:%S}"


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()


def _names_of_lengths() -> list[str]:
    bounds = [drawing.duration(each) for each in data.LENGTHS]
    middle = [f"{low} to {high}" for low, high in itertools.pairwise(bounds)]
    return [f"under {bounds[0]}", *middle, f"{bounds[-1]} or more"]
