"""Robustness curves: how scores depend on what derived datasets take away."""
