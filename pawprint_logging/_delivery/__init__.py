"""How events get to the table: queue, worker, writer, and the fallback for what cannot be written."""
