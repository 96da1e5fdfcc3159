"""What is counted, kept and shown: books, records, snapshots; pure."""
