"""Checks of conditions, expressions and templates against the schemas of their events; floor 4."""
