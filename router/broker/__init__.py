"""All use of Redis: sources, queues, dead letters, and the state of the server; floor 4."""
