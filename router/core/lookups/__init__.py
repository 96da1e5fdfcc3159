"""Lookups: which keys a delivery needs, in which order, and the cache of their records; floor 2."""
