"""One Redis server: connections, its health and durability, the embedded one; floor 4."""
