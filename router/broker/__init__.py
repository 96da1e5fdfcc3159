"""What speaks to Redis; floor 4."""
