"""Checks of conditions, expressions and templates against the schemas of the events that they get; floor 4."""
