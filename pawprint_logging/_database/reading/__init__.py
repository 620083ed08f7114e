"""Conditions into SQL, and rows out of the table."""
