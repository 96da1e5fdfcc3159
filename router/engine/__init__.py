"""The engine: runs sources, queues and sinks, and carries out the decisions of `core`; floor 5."""
