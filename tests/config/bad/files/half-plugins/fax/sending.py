"""Its folder has no `__init__.py`, so it is no plugin."""
