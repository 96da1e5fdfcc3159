"""The making of a first configuration for `event-router init`: questions, files, and a trial of the files; floor 7."""
