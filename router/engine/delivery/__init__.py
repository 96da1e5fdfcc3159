"""The way of a delivery from its queue to its outcome; floor 5."""
