"""The commands of an operator: check, reload, status, dlq, queue; floor 7."""
