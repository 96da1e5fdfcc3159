"""The store of lookups with records in Redis; floor 4."""
