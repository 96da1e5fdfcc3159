"""The life of a router: start, watch, drain, end; floor 5."""
