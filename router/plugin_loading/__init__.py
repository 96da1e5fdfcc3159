"""How plugins are found, judged, imported and registered; floor 3."""
