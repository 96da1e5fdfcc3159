"""List sources; floor 4."""
