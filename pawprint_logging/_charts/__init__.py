"""Charts of what the tracker and its statistics return; matplotlib is imported when one is drawn."""
