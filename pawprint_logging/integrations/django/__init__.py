"""A Django app: a handler from the setting ``PAWPRINT``, a middleware, transactions, checks, ``manage.py pawprint``.

::

    INSTALLED_APPS = [..., "pawprint_logging.integrations.django"]
    MIDDLEWARE = [..., "pawprint_logging.integrations.django.EventsMiddleware"]
    PAWPRINT = {"TABLE": "events", "DATABASE": "default"}
"""

from __future__ import annotations

from .middleware import EventsMiddleware
from .transactions import after_commit

__all__ = ["EventsMiddleware", "after_commit"]
