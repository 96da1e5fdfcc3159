"""Pure decisions; floor 2. No clock, socket, file or random number: values come in as arguments."""
