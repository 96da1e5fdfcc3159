"""The connections to Redis: sources, queues, dead letters, and the server's state; floor 4."""
