"""Stores of lookups that are files or HTTP servers; floor 4."""
