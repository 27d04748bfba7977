"""Exact tools for piecewise-linear networks: regions, cycles, manifolds, symbols, the flow in continuous time."""

from ._cycles import Cycles as Cycles, find_cycles as find_cycles, refine_cycle as refine_cycle
from ._regions import find_regions as find_regions
