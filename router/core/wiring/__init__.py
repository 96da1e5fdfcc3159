"""The paths of events through a configuration, decided by its names and globs alone; floor 2."""
