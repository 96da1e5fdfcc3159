"""Which events can get where, decided by the names and globs of a configuration alone; floor 2."""
