"""The typed configuration: its scalars and the models of its sections; floor 1."""
