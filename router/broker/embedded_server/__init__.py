"""The embedded server: a Valkey process that the router starts and stops itself; floor 4."""
