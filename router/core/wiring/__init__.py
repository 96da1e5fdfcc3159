"""The paths of events through a configuration, as far as names and globs decide them; floor 2."""
