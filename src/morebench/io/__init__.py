"""Reading and writing every file kind, each behind a check of its contract."""
