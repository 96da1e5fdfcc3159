"""Stores of lookups that are in Redis; floor 4."""
