"""Dead letters: creation, summaries for people, replay; floor 5."""
