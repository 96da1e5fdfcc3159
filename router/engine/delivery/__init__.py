"""The delivery from queue to outcome: preparing, calling, results, health of a sink; floor 5."""
