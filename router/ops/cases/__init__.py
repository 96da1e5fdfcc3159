"""Tests of a configuration: they run on the simulation, without Redis and without sending; floor 4."""
