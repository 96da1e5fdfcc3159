"""The Jinja sandbox that templates and expressions run in: environments, filters, bounds; floor 2."""
