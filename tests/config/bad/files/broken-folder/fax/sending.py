"""It imports a module of its own folder without the dot."""

from paper import register_sinks  # noqa: F401
