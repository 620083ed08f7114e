"""Settings of the shop; `PAWPRINT`, the last app and the last middleware are for events."""

from __future__ import annotations

import os
from pathlib import Path

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "for trying out only")
DEBUG = True
ROOT_URLCONF = "shop.urls"
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "pawprint_logging.integrations.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "pawprint_logging.integrations.django.EventsMiddleware",  # after the one that finds the user
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

# The shop's own data. A request that fails leaves nothing behind, and no event either.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(__file__).parents[1] / "shop.sqlite3",
        "ATOMIC_REQUESTS": True,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Here the events have a database of their own; to use one of DATABASES: {"TABLE": "events", "DATABASE": "default"}
PAWPRINT = {
    "DB": os.environ.get("SHOP_DB", "embedded:pawprint-demo"),
    "TABLE": "events",
    "CREATE_TABLE": True,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}
