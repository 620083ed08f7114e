"""One run of the program, and what happens to its errors."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, cast

import click

# importing these modules registers their commands
from . import (  # noqa: F401
    check,
    demo,
    erase,
    export,
    import_,
    maintain,
    read,
    replay,
    serve,
    ship,
    statistics,
    table,
    tail,
)
from .failures import explain, one_line
from .interrupts import signals_end_waits
from .output import PROGRAM, say
from .program import COMPLETE, State, is_interrupt, program

# A connection string passed where a name belongs must not be printed: it may hold a password.
_SECRET = re.compile(r"\S*://\S*|\S*password\s*=\s*\S*", re.IGNORECASE)


def run(arguments: Sequence[str] | None, described: Mapping[str, Any] | None = None, name: str = PROGRAM) -> int:
    """Run the program; return its exit status. See `cli.main`."""
    if sys.stdout is None:  # the caller has closed it, as >&- does
        return _fail(name, "standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character must not end the command
            stream.reconfigure(errors="backslashreplace")
    original, output = sys.stdout, _Output(sys.stdout)
    sys.stdout = replaced = cast("TextIO", output)
    try:
        with signals_end_waits():
            return _run(arguments, State(described=described or {}), name, output)
    except KeyboardInterrupt:  # once more, while the first one was ending the program
        return 130
    finally:
        if sys.stdout is replaced:  # else click has wrapped it, because the reader has closed the pipe
            sys.stdout = original


class _Output:
    """Standard output that keeps the error of a failed write: a flush afterwards may have nothing left that fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _run(arguments: Sequence[str] | None, state: State, name: str, output: _Output) -> int:
    try:
        status = program.main(
            args=None if arguments is None else list(arguments),
            prog_name=name,
            complete_var=COMPLETE,
            standalone_mode=False,
            obj=state,
        )
        sys.stdout.flush()
    except click.UsageError as error:
        return _usage(error, name)
    except click.Abort as error:
        if is_interrupt(error):
            return 130
        return _fail(name, "stopped: there was no answer")
    except BrokenPipeError:
        _discard_output()  # the reader, such as `head`, has closed the pipe
        return 1
    except Exception as error:
        is_lost = error is output.error
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        if is_lost and isinstance(error, OSError) and not state.with_traceback:
            return _fail(name, f"cannot write to standard output: {error.strerror}")
        if state.with_traceback:
            traceback.print_exc()
            return 1
        return _fail(
            name,
            error.format_message()
            if isinstance(error, click.ClickException)
            else explain(error, state.tracker, state.purpose, name),
        )
    finally:
        if state.tracker is not None:
            state.tracker.close()
        state.restore_signals()
    return status if isinstance(status, int) else 0


def _discard_output() -> None:
    """Write what is still buffered to nowhere; else Python would complain again at exit, with a status of its own.

    Source: https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.UsageError, name: str) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    path = error.ctx.command_path if error.ctx is not None else name
    message = _SECRET.sub("…", error.format_message()).rstrip(".")
    say(one_line(f"{path}: {message[:1].lower()}{message[1:]}; see {path} --help"), err=True)
    return 2


def _fail(name: str, message: str) -> int:
    say(one_line(f"{name}: {message}"), err=True)
    return 1
