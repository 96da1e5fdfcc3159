"""The parts of the Redis queue of one sink, each with its own state; floor 4."""
