"""The stores of lookups with records in a file or on an HTTP server; floor 4."""
