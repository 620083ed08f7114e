"""What is derived from the events, inside the server."""
