"""Stream sources; floor 4."""
