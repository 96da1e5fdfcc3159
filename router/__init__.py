"""event-router receives events from Redis, validates and routes them, and delivers them to sinks.

No module of the package imports from this one. Plugins import `router.api`.

PYTEST_DONT_REWRITE: this word prevents a warning of pytest that the module was imported before pytest looked for plugins.
"""
