"""One Redis server: connections, its health and its durability; floor 4."""
