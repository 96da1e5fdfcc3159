"""Hot reload: differences, replacement of parts, requests; floor 5."""
