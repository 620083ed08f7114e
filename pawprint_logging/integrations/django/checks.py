"""What `manage.py check` says about events."""

from __future__ import annotations

import logging
from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names

from .options import EXAMPLE, problem

_LEVEL = 'LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "INFO"}}'


def check_settings(app_configs: Any, **_: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django passes it
    """Check whether the setting can be used, and whether events reach the handler."""
    if (found := problem()) is not None:
        return [Error(f"PAWPRINT: {found}", hint=f"write for instance PAWPRINT = {EXAMPLE}", id="pawprint.E001")]
    messages: list[CheckMessage] = []
    root = logging.getLogger()
    if not root.isEnabledFor(logging.INFO):
        level = logging.getLevelName(root.getEffectiveLevel())
        messages.append(
            Warning(
                f"the root logger is at {level}: events at INFO are lost unless their logger has a level of its own",
                hint=f"write for instance {_LEVEL}",
                id="pawprint.W001",
            )
        )
    return messages
