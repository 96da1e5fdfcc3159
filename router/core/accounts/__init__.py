"""The accounts of a router: books, records, snapshots; pure."""
