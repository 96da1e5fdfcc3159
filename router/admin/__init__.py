"""The HTTP side: who watches a running router asks here; floor 6."""
