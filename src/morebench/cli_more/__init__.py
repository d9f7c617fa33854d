"""MoRE on the command line: fit a model on cells, then embed and annotate cells with it."""
