"""Writing rows into the table."""
