"""The way of a message from its source to the queues of its sinks; floor 5."""
