"""The module that is meant."""
