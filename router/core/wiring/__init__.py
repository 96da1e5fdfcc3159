"""The paths of events through a configuration, decided only by its names and globs; floor 2."""
