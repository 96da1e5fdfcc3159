"""A plugin of several modules, of which one can't be imported."""

from .sending import register_sinks  # noqa: F401
