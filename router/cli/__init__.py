"""The command line; floor 7. One module per group: parses, calls, prints."""
