"""Exact tools for piecewise-linear networks: regions, cycles, manifolds, symbols, the flow in continuous time."""
