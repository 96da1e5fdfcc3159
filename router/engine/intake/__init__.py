"""The pipeline from the sources to the queues of the sinks: decode, validate, route, enqueue; floor 5."""
