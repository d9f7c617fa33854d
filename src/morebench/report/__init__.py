"""The web report."""
