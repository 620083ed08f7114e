"""A session with the server: address, connection, time limits, what a SQLSTATE means, and the embedded server."""
