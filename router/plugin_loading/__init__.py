"""Plugin loading: finding, checking, importing and registering plugins; floor 3."""
