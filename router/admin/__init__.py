"""The admin side: the HTTP server for health, metrics and status, and its client; floor 6."""
