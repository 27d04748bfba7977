"""Exact tools for piecewise-linear networks: regions, cycles, manifolds, symbols, the flow in continuous time."""

from ._equilibria import (
    Equilibria as Equilibria,
    find_equilibria as find_equilibria,
    search_equilibria as search_equilibria,
)
from ._event_flow import EventExactFlow as EventExactFlow, sample_flow as sample_flow
from ._vector_field import (
    ContinuousALRNN as ContinuousALRNN,
    PiecewiseLinearField as PiecewiseLinearField,
)
