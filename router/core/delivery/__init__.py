"""Decisions about a delivery: retry, breaker, pace, order, claims; pure."""
