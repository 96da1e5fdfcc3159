"""event-router: Redis in, validated, routed, delivered.

Nothing inside the package imports this root; plugins import `router.api`.
"""
