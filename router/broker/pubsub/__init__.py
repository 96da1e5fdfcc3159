"""Pub/sub sources; floor 4."""
