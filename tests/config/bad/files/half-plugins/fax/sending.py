"""Its folder has no `__init__.py`, so it is not a plugin."""
