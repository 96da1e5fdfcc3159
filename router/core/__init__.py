"""What decides and touches nothing; floor 2. No clock, socket, file or chance: they come in as arguments."""
