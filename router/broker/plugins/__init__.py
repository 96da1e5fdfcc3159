"""What plugins get of Redis; floor 4."""
