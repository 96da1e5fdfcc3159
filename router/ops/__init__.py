"""The access to the system around the router: logs, metrics, systemd, HTTP, files; floor 4."""
