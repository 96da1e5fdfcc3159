"""The commands of a plugin author; floor 7."""
