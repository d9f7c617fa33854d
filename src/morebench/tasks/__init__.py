"""Which metrics, on which cells, for which methods."""
