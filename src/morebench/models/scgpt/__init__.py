"""scGPT: gene tokens, binned values, a transformer whose first output is the cell."""
