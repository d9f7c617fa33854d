"""MoRE: frozen features, adapters, fusion, iterative batch refinement."""
