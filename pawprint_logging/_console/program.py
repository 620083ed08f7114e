"""The command group, to which the other modules add their commands.

Also the options that every command has, and the state of a run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .. import __version__
from .._database.session.dsn import Dsn
from ..errors import ConfigurationError
from ..tracker import Tracker
from .failures import Purpose
from .output import PROGRAM, note, printable, say

#: the variable by which a shell's completion script asks for completions
COMPLETE = "_PAWPRINT_LOGGING_COMPLETE"


class _Path(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:  # as from an unset variable of the shell; it would be the current directory
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


#: the type of options and arguments that are paths
PATH = _Path(path_type=Path)


@dataclass
class State:
    """The state of one run of the program.

    Args:
        given: the connection options of the command line, by name.
        purpose: what the command does in the database, for the advice in an error message.
        tracker: the tracker, once the command has asked for it.
        with_traceback: whether an error is shown with its traceback.
        described: a framework's arguments for the tracker, which replace the environment variables.
    """

    given: dict[str, str] = field(default_factory=dict)
    purpose: Purpose = "read"
    tracker: Tracker | None = None
    with_traceback: bool = False
    described: Mapping[str, Any] = field(default_factory=dict)
    _has_handler: bool = field(default=False, init=False)

    def connect(self, purpose: Purpose, *, needs_table: bool = True) -> Tracker:
        """Return the tracker for the options and variables, with a database, and a table if one is needed.

        Raises:
            ConfigurationError: no database or table is named, or an option cannot be used.
        """
        self.purpose = purpose
        options: dict[str, Any] = dict(self.given)
        if self.described:
            return self._of_framework(options, needs_table=needs_table)
        found = {name: os.environ.get(f"PAWPRINT_{name.upper()}") for name in ("dotfile", "db", "table")}
        variables = {name: value for name, value in found.items() if value and name not in options}
        dotfile = options.get("dotfile") or variables.pop("dotfile", None)
        if dotfile is not None:  # the file wins over the variables; they fill in what it leaves out
            described = Tracker(dotfile=dotfile)
            options["dotfile"] = dotfile
            variables = {name: value for name, value in variables.items() if getattr(described, name) is None}
        tracker = Tracker(**{**variables, **options})
        if tracker.is_debug:
            raise ConfigurationError(
                'no database is named: pass --db "postgresql://…", or --dotfile, or set PAWPRINT_DB'
            )
        if tracker.table is None and needs_table:
            raise ConfigurationError("no table is named: pass --table, or --dotfile, or set PAWPRINT_TABLE")
        self.tracker = tracker
        if str(tracker.db).startswith("embedded:"):
            self._end_in_order()
        return tracker

    def _end_in_order(self) -> None:
        """Make SIGTERM exit normally, which stops the embedded server that this program may have started.

        With other servers, SIGTERM ends the program at once.
        """
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, end_in_order)
            self._has_handler = True

    def restore_signals(self) -> None:
        """Give SIGTERM its default action again, if this run changed it."""
        if self._has_handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _of_framework(self, options: Mapping[str, Any], *, needs_table: bool) -> Tracker:
        described = {} if "dotfile" in options else dict(self.described)
        if not needs_table:
            described.pop("table", None)
        self.tracker = Tracker(**{**described, **options})
        if self.tracker.is_debug:
            raise ConfigurationError("no database is named: name one in the settings, or pass --db")
        return self.tracker


def end_in_order(number: int, _: object) -> None:
    """End the program; the handler of a signal."""
    sys.exit(128 + number)


def is_confirmed(tracker: Tracker, question: str, otherwise: str) -> bool:
    """Ask a question at the terminal, and return whether the answer is yes; for another answer, print a note.

    Args:
        tracker: says in which database it is done.
        question: what is to be done.
        otherwise: what has not happened, if the answer is not yes.

    Raises:
        click.Abort: Ctrl-C was pressed.
    """
    try:
        if sys.stdin is None:  # the caller has closed it, as <&- does
            raise click.Abort
        say(f"in {Dsn(str(tracker.db))}:", err=True)  # without the password
        click.confirm(printable(question), abort=True, err=True)
    except click.Abort as error:
        if is_interrupt(error):
            raise
        note(f"{otherwise}; answer y, or pass --yes")
        return False
    return True


def is_interrupt(error: click.Abort) -> bool:
    """Return whether Ctrl-C ended the program; click hides it at a prompt, with ``raise Abort from None``."""
    return isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    state = context.find_object(State)
    if state is None or value in (None, False):
        return
    if parameter.name == "traceback":
        state.with_traceback = True
    elif parameter.name is not None:
        state.given[parameter.name] = value


def _connection_options() -> list[click.Parameter]:
    db_text = (
        "Database, as a URI, keyword string or embedded:DIRECTORY. A password is better left to the variable or the "
        "file: other users of the machine can read a command's arguments.  [env var: PAWPRINT_DB]"
    )
    texts = {
        "dotfile": ("FILE", "JSON file with the tracker's options.  [env var: PAWPRINT_DOTFILE]"),
        "db": ("DSN", db_text),
        "table": ("NAME", "Events table.  [env var: PAWPRINT_TABLE]"),
    }
    return [
        click.Option([f"--{name}"], metavar=metavar, help=text, callback=_keep, expose_value=False)
        for name, (metavar, text) in texts.items()
    ]


def _traceback_option() -> click.Parameter:
    text = "Show the traceback of an error; it may hold values and queries."
    return click.Option(["--traceback"], is_flag=True, help=text, callback=_keep, expose_value=False)


@click.group(
    PROGRAM,
    params=[*_connection_options(), _traceback_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="--dotfile, --db and --table may stand before or after the command. "
    "What is passed wins over the file, and the file over the variables.",
)
@click.version_option(__version__, prog_name=PROGRAM)
def program() -> None:
    """Read and look after a table of events in PostgreSQL."""


def command(name: str, *, connects: bool = True) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a function a command; its first argument is the `State`.

    Args:
        name: the command's name.
        connects: whether it takes the connection options, as the group does.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        made = program.command(name)(click.pass_obj(function))
        made.params.extend([*(_connection_options() if connects else ()), _traceback_option()])
        return made

    return decorate
