"""The stores of lookups whose records are in a file or on an HTTP server; floor 4."""
