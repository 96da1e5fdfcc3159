"""The commands of an installation: config, completion; floor 7."""
