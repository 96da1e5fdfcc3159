"""The commands for the first steps: init, demo, run, publish, explain; floor 7."""
