"""The Redis queues of sinks; floor 4."""
