"""The commands of a first hour: demo, run, publish; floor 7."""
