"""A first configuration for `event-router init`: answers, files made of them, and the trial of these files; floor 7."""
