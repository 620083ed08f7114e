"""The app: adds the handler when Django starts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.db.backends.base.creation import BaseDatabaseCreation
from django.utils.module_loading import import_string

from ..._delivery.living import everything as living
from ...errors import ConfigurationError
from ...handler import PawprintHandler
from .._binding import logger, write_what_waits
from .checks import check_settings
from .options import given, options

#: the handler's name, for `get_handler`
NAME = "pawprint"
#: what a test runner does with databases; the last but one makes a process of `--parallel` use its own copy
_STEPS = ("create_test_db", "set_as_test_mirror", "clone_test_db", "setup_worker_connection", "destroy_test_db")


class PawprintConfig(AppConfig):
    """The app ``pawprint``."""

    name = "pawprint_logging.integrations.django"
    label = "pawprint"
    verbose_name = "Pawprint"
    #: what is wrong with the setting; a check reports it, and the middleware raises it
    problem: ClassVar[str | None] = None

    def ready(self) -> None:
        """Add the handler to the root logger, and the checks."""
        checks.register(check_settings)
        _let_go_of_test_databases()
        try:
            is_described = _has_handler_of_its_own()
            # a project whose LOGGING describes the handler needs no setting; one that it has must be right
            found = {} if is_described and not given() else options()
            if not is_described:
                handler = PawprintHandler(**found)
                handler.set_name(NAME)
                logging.getLogger().addHandler(handler)
                _configure_again_with(handler)
        except (ConfigurationError, TypeError, ValueError) as error:
            type(self).problem = str(error)
            # `manage.py check` reports it too, but a server that runs no checks would start without a word
            logger.error("the setting PAWPRINT cannot be used, and no event is stored: %s", error)
        else:
            type(self).problem = None


def _has_handler_of_its_own() -> bool:
    """Return whether ``LOGGING`` has a handler for events."""
    described = (settings.LOGGING or {}).get("handlers", {})
    if NAME in described or any(_is_for_events(each) for each in described.values()):
        return True
    # one that a function makes: Django has configured logging by now
    return any(isinstance(made, PawprintHandler) and made.get_name() in described for made in living())


def _is_for_events(described: Any) -> bool:
    made_by = described.get("()", described.get("class")) if isinstance(described, Mapping) else None
    if isinstance(made_by, str):
        with suppress(ImportError):
            made_by = import_string(made_by.removeprefix("ext://"))
    return isinstance(made_by, type) and issubclass(made_by, PawprintHandler)


def _configure_again_with(handler: PawprintHandler) -> None:
    """Keep the handler when Django configures logging once more, as it does to make a WSGI application."""
    described = dict(settings.LOGGING or {})
    loggers = dict(described.get("loggers", {}))
    # the root logger has three names in a dictConfig; each description takes away the handlers that the logger has
    roots = [(part, name) for part, name in ((described, "root"), (loggers, "root"), (loggers, "")) if name in part]
    for part, name in roots:
        part[name] = {**part[name], "handlers": [*(part[name].get("handlers") or ()), NAME]}
    if roots:
        handlers = {**described.get("handlers", {}), NAME: {"()": lambda: handler}}
        settings.LOGGING = {**described, "handlers": handlers, "loggers": loggers}


def _let_go_of_test_databases() -> None:
    """Close our connections before each step in which a test runner changes, copies or drops a database.

    One that stays open would go on writing to the development database; and PostgreSQL neither copies nor drops a
    database that is in use.
    """
    for name in _STEPS:
        step = getattr(BaseDatabaseCreation, name)
        if not hasattr(step, "__wrapped__"):
            setattr(BaseDatabaseCreation, name, _after_letting_go(step))


def _after_letting_go(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def stepping(self: BaseDatabaseCreation, *args: Any, **keywords: Any) -> Any:
        write_what_waits()
        for made in living():
            made.tracker.close()
        return step(self, *args, **keywords)

    return stepping
