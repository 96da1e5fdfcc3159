"""Queues in this process: a bounded one for each sink, and one that keeps the order of each key."""
