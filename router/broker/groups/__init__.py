"""Consumer groups: reading, claiming, acknowledging, recovery and crash isolation; floor 4."""
