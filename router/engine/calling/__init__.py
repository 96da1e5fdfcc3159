"""What runs the code of plugins: calls, threads, processes, the stall watch; floor 5."""
