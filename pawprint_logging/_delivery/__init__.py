"""How events get to the table: queue, worker, writer, and the fallback for events that cannot be written."""
