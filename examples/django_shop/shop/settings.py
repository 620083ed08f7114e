"""Settings of the shop; what concerns events is `LOGGING`, and the last line of `MIDDLEWARE`."""

from __future__ import annotations

import os
from pathlib import Path

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "for trying out only")
DEBUG = True
ROOT_URLCONF = "shop.urls"
USE_TZ = True

INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "shop.middleware.bind_user",  # after the one that finds out who it is
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

# Where the shop itself keeps its data; the events may be in the same PostgreSQL or in another one.
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parents[1] / "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "console": {"class": "logging.StreamHandler"},
        "events": {
            "class": "pawprint_logging.PawprintHandler",
            "db": os.environ.get("SHOP_DB", "embedded:pawprint-demo"),
            "table": "events",
            "create_table": True,
        },
    },
    "root": {"level": "INFO", "handlers": ["console", "events"]},
}
