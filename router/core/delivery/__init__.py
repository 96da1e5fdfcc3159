"""Decisions about a delivery: retry, circuit breaker, rate limit, order, claims; pure."""
