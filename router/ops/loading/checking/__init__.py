"""Checks of a configuration across its sections; floor 4."""
