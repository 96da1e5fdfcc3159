"""The execution of plugin code: calls, tasks and deadlines, threads, processes, the stall watch; floor 5."""
