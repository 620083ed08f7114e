"""`serve`: the page in the browser."""

from __future__ import annotations

import os
import socket

import click

from .output import note
from .program import State, command

_TOKEN = "PAWPRINT_TOKEN"  # noqa: S105 - the variable's name


@command("serve")
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to listen on; 0: any that is free.",
)
@click.option(
    "--allow-host",
    "allowed",
    metavar="NAME",
    multiple=True,
    help="Another host name under which the page is opened; can be repeated.",
)
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    help="Time after which a query is cancelled on the server.",
)
def serve(state: State, *, host: str, port: int, allowed: tuple[str, ...], time_limit: float) -> None:
    """Show the events in a browser, until Ctrl-C.

    The page only reads, and loads nothing from elsewhere. It listens on this machine alone; on another address it asks
    for a token, which is printed at the start, or taken from the variable PAWPRINT_TOKEN.
    """
    tracker = state.connect("read")
    try:
        import uvicorn  # noqa: F401 - whether it is there

        from ..web import app
    except ImportError as error:
        raise ImportError(f'serve needs {error.name}: pip install "pawprint-logging[web]"', name=error.name) from error
    from ..web import server

    token = os.environ.get(_TOKEN) or None
    if not server.is_loopback(host) and token is None:
        token = server.new_token()
    names = {host.lower(), *(name.lower() for name in allowed)}
    if not server.is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    page = app(tracker, hosts=names, token=token, time_limit=time_limit)
    opened = server.listen(host, port)
    with opened:
        port = opened.getsockname()[1]
        shown = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104 - a comparison
        place = f"[{shown}]" if ":" in shown else shown
        query = f"?token={token}" if token is not None and _TOKEN not in os.environ else ""
        click.echo(f"http://{place}:{port}/{query}")
        note(f"showing {tracker.table} until Ctrl-C" + ("; it asks for the token" if token is not None else ""))
        server.serve(page, [opened])
