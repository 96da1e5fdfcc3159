"""Built-in sink: log."""
