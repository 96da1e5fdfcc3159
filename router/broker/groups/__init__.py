"""Consumer groups: claiming, recovery, and which entry is to blame when the process dies; floor 4."""
