"""The syntax of templates and expressions: parsing them, their faults, and the names and fields that they read; floor 2."""
