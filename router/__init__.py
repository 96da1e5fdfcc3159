"""event-router: Redis in, validated, routed, delivered.

Nothing inside the package imports this root; plugins import `router.api`.

PYTEST_DONT_REWRITE: this word keeps pytest from warning that the module was imported before pytest looked for plugins.
"""
