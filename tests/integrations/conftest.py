"""Django, configured once; each test has databases of its own."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import django
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from django.urls import URLPattern
from support.server import USER, Server

#: where a test puts its views
urls = ModuleType("pawprint_test_urls")
urls.__dict__["urlpatterns"] = []
sys.modules[urls.__name__] = urls

_DATABASE = {"ENGINE": "django.db.backends.postgresql", "NAME": "none"}


def pytest_configure() -> None:
    if not settings.configured:
        settings.configure(
            SECRET_KEY="x",
            ALLOWED_HOSTS=["*"],
            DATABASES={"default": dict(_DATABASE), "other": dict(_DATABASE)},
            INSTALLED_APPS=[
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django.contrib.sessions",
                "pawprint_logging.integrations.django",
            ],
            MIDDLEWARE=[
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "pawprint_logging.integrations.django.EventsMiddleware",
            ],
            PAWPRINT={"TABLE": "events", "CREATE_TABLE": True, "FLUSH_INTERVAL": 0.01},
            # each test makes a handler of its own
            LOGGING={"version": 1, "handlers": {"pawprint": {"class": "logging.NullHandler"}}},
            ROOT_URLCONF=urls.__name__,
            USE_TZ=True,
        )
        django.setup()


@pytest.fixture(autouse=True)
def _alone(nobody_else: None) -> None:
    """Leave out the handlers of tests elsewhere that ran in the same process before."""


@pytest.fixture
def databases(server: Server, db: str) -> Iterator[list[str]]:
    """The DSNs of `default` and `other`; the first one is `db`."""
    second = f"test_{uuid.uuid4().hex[:12]}"
    server.execute(f"CREATE DATABASE {second} OWNER {USER}")
    addresses = [db, server.dsn(second)]
    for alias, address in zip(("default", "other"), addresses, strict=True):
        parts = urlsplit(address)
        connections[alias].settings_dict.update(
            NAME=parts.path[1:],
            HOST=parts.hostname,
            PORT=parts.port,
            USER=parts.username,
            PASSWORD=parts.password,
            ATOMIC_REQUESTS=False,
        )
    yield addresses
    connections.close_all()
    asyncio.run(sync_to_async(connections.close_all)())  # those of the thread that async code calls
    server.execute(f"DROP DATABASE {second} WITH (FORCE)")


@pytest.fixture
def views() -> Iterator[Callable[..., None]]:
    """Adds views: `views(path("buy", buy))`."""
    from django.urls import clear_url_caches

    def add(*patterns: URLPattern) -> None:
        urls.__dict__["urlpatterns"][:] = patterns
        clear_url_caches()

    yield add
    add()


@pytest.fixture
def migrated(databases: list[str]) -> Any:
    """`databases`, with the tables of Django's own apps in `default`."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    return databases
