"""What runs the code of plugins: calls, their tasks and deadlines, threads, processes, the stall watch; floor 5."""
