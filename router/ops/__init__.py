"""The world around: files, environment, logs, systemd, HTTP; floor 4."""
