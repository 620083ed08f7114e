"""Product events in your own PostgreSQL, from the log lines you already write."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._delivery.fallback import FallbackFormatter
    from ._delivery.replay import replay
    from ._delivery.ship import ship
    from .errors import ConfigurationError, PawprintError
    from .event import Event, declared_events, register_event
    from .handler import PawprintHandler
    from .processor import PawprintProcessor
    from .scope import flush, get_handler, within
    from .statistics import Statistics
    from .tracker import Tracker

__version__ = "0.2.0"

__all__ = [
    "ConfigurationError",
    "Event",
    "FallbackFormatter",
    "PawprintError",
    "PawprintHandler",
    "PawprintProcessor",
    "Statistics",
    "Tracker",
    "declared_events",
    "flush",
    "get_handler",
    "register_event",
    "replay",
    "ship",
    "within",
]

#: the module of each public name
_HOMES = {
    "ConfigurationError": ".errors",
    "Event": ".event",
    "FallbackFormatter": "._delivery.fallback",
    "PawprintError": ".errors",
    "PawprintHandler": ".handler",
    "PawprintProcessor": ".processor",
    "Statistics": ".statistics",
    "Tracker": ".tracker",
    "declared_events": ".event",
    "flush": ".scope",
    "get_handler": ".scope",
    "register_event": ".event",
    "replay": "._delivery.replay",
    "ship": "._delivery.ship",
    "within": ".scope",
}

if not TYPE_CHECKING:  # a type checker would accept any name of this module

    def __getattr__(name: str) -> Any:
        """Import a public name on first use (PEP 562).

        Where this package is installed, every pytest run imports it for the sake of one fixture; that must not import
        psycopg2 and structlog.
        """
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name], __name__), name)
        globals()[name] = value  # found without this function from now on
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
