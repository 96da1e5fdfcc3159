"""The execution of lookups: fetching, sharing and caching the records that deliveries need; floor 5."""
