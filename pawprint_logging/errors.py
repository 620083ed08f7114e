"""The exceptions of this package; database errors stay psycopg2's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID


class PawprintError(Exception):
    """Base class of every exception that this package defines."""


class ConfigurationError(PawprintError, ValueError):
    """An option, name or file is not usable; the message names it and says what to do."""


class DeliveryError(PawprintError):
    """An event could not be written, for a reason other than a database error.

    Passed to ``on_error``; never raised into the application.
    """


class QueueFullError(DeliveryError):
    """More events wait than ``max_queue_size`` or ``max_queue_bytes`` allows."""


class ClosedError(DeliveryError):
    """The handler or processor was closed before the event could be written."""


class CaptureError(DeliveryError):
    """A record could not be turned into an event, for instance because ``before_send`` raised.

    Args:
        reason: why, without any of the event's values.
        event: as much of it as could be made, encoded, with its dedupe key if it has one.
    """

    def __init__(self, reason: str, event: tuple[tuple[str, ...], bytes] | tuple[tuple[str, ...], bytes, UUID]) -> None:
        super().__init__(reason)
        self.event = event
