"""Derive statistics from the events, inside the server."""
