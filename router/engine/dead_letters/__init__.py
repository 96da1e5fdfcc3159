"""Dead letters made, summed up for people, and sent again; floor 5."""
