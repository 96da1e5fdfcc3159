"""Reading a configuration: YAML with places, environment, includes, types; floor 4."""
