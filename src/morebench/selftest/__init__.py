"""Self-test of the metrics: how each answers to effects of known strength."""
