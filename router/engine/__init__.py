"""What carries out what `core` decides; floor 5."""
