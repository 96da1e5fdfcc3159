"""Queues in this process: the bounded memory queue of a sink, and the ordered queue for `order_by`; floor 5."""
