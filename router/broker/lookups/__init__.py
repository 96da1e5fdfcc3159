"""The store of lookups whose records are in Redis; floor 4."""
