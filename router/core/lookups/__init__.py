"""Lookups: the keys that a delivery needs, their order, and the cache of records; floor 2."""
