"""``manage.py pawprint …``: the command line, with the connection that the settings name."""

from __future__ import annotations

import sys
from argparse import REMAINDER
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from .....cli import main
from .....errors import ConfigurationError
from .....tracker import TRACKER_OPTIONS
from ...options import options

_NAME = "manage.py pawprint"


class Command(BaseCommand):
    """Runs a command of pawprint-logging."""

    help = "Reads and maintains the events: everything that pawprint-logging does, on the table of the settings."

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass on everything after the command, which Django's own parser must not see."""
        parser = CommandParser(add_help=False, allow_abbrev=False)
        for name in ("--settings", "--pythonpath"):  # Django has applied them already
            parser.add_argument(name)
        try:
            status = self._run(parser.parse_known_args(argv[2:])[1])
        except CommandError as error:  # Django shows those that come from its own `run_from_argv`
            sys.stderr.write(f"{_NAME}: {error}\n")
            status = error.returncode
        sys.exit(status)

    def add_arguments(self, parser: CommandParser) -> None:
        """Accept any arguments, for `call_command`."""
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *_: Any, **given: Any) -> None:
        """Run the command for `call_command`."""
        if status := self._run(given["arguments"]):
            raise CommandError("the command failed", returncode=status)

    @staticmethod
    def _run(arguments: list[str]) -> int:
        try:
            described = {name: value for name, value in options().items() if name in TRACKER_OPTIONS}
        except ConfigurationError as error:
            raise CommandError(f"PAWPRINT: {error}") from None
        return main(arguments, described=described, name=_NAME)
