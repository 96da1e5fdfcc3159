"""Lookups carried out: the records of a delivery fetched, shared and cached; floor 5."""
