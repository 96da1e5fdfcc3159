"""event-router: Redis in, validated, routed, delivered.

Nothing inside the package imports this root; plugins import `router.api`.

PYTEST_DONT_REWRITE: pytest need not warn that this module was imported before its plugins were looked for.
"""
