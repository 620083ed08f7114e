"""What the tests stand on: a real PostgreSQL, and a proxy that breaks the connection to it at a chosen moment."""
