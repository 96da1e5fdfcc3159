"""The access of plugins to Redis; floor 4."""
