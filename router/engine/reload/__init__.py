"""Hot reload: what changed, what is replaced, who asked; floor 5."""
