"""Turn conditions into SQL, and read rows from the table."""
