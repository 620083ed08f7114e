"""One session with the server: address, connection, bounds, what a SQLSTATE means, and the embedded server."""
