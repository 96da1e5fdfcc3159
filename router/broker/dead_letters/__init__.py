"""Dead letters in Redis: writing, reading, removing; floor 4."""
