"""Capture: log records and structlog event dicts become encoded events, in the calling thread."""
