"""Rows into the table."""
