"""The setting ``PAWPRINT``: a handler's options in capitals, and which of Django's databases has the table."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist
from django.utils.module_loading import import_string

from ..._database.session.dsn import LateDsn, keywords
from ..._nearest import did_you_mean
from ...errors import ConfigurationError
from ...handler import PawprintHandler

#: options of the handler by their names in the setting
_KNOWN = {name.upper(): name for name in inspect.signature(PawprintHandler).parameters if name != "tracker"}
#: options that take a function, or its dotted path, as Django's own settings do
_FUNCTIONS = ("AFTER_COMMIT", "BEFORE_SEND", "ON_ERROR")
#: what can be used whatever is in DATABASES
EXAMPLE = '{"TABLE": "events", "DB": "postgresql://localhost/shop"}'
_AFTER_COMMIT = "pawprint_logging.integrations.django.after_commit"


def given() -> Mapping[str, Any]:
    """Return the setting as it is written."""
    found: Any = getattr(settings, "PAWPRINT", None)
    return found if found is not None else {}


def options() -> dict[str, Any]:
    """Return the options of the handler that the setting describes.

    Raises:
        ConfigurationError: an option is unknown, no table is named, or there is no such database.
    """
    asked = given()
    if not isinstance(asked, Mapping):
        raise ConfigurationError(f"it must be a dict such as {EXAMPLE}, not a {type(asked).__name__}")
    known = [*_KNOWN, "DATABASE"]
    for name in asked:
        if name not in known:
            raise ConfigurationError(f"there is no option {name!r}{did_you_mean(str(name), known)}")
    found = {_KNOWN[name]: _function(name, value) for name, value in asked.items() if name != "DATABASE"}
    found.setdefault("after_commit", import_string(_AFTER_COMMIT))
    if "DB" in asked and "DATABASE" in asked:
        raise ConfigurationError("DB and DATABASE both say where the table is; leave one out")
    if "DATABASE" in asked or not {"DB", "DOTFILE"} & asked.keys():
        found["db"] = LateDsn(_Address(asked.get("DATABASE", "default")))
    if not {"TABLE", "DOTFILE"} & asked.keys() and found.get("db") is not None:
        raise ConfigurationError(f"no table is named; write PAWPRINT = {EXAMPLE}")
    return found


def _function(name: str, value: Any) -> Any:
    if name not in _FUNCTIONS or not isinstance(value, str):
        return value
    try:
        return import_string(value.removeprefix("ext://"))
    except ImportError as error:
        raise ConfigurationError(f"{name} is not the dotted path of a function: {value!r}") from error


class _Address:
    """Asks Django for a database's connection parameters on each call, because a test runner changes them.

    Raises:
        ConfigurationError: there is no such database, or it is not PostgreSQL.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        try:
            vendor = connections[alias].vendor
        except ConnectionDoesNotExist:
            hint = did_you_mean(str(alias), connections)
            raise ConfigurationError(f"DATABASES has no {alias!r}, which DATABASE names{hint}") from None
        if vendor != "postgresql":
            raise ConfigurationError(
                f"DATABASE is {alias!r}, which is not PostgreSQL ({vendor});"
                ' name another, or write "DB": "postgresql://…"'
            )
        try:
            self()
        except ImproperlyConfigured as error:  # no NAME, or one that is too long
            raise ConfigurationError(f"DATABASES[{alias!r}]: {error}") from None

    def __call__(self) -> str:
        return keywords(connections[self._alias].get_connection_params())


def problem() -> str | None:
    """Return what is wrong with the setting, if something is."""
    from .apps import PawprintConfig

    return PawprintConfig.problem
