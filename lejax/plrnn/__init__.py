"""Exact tools for piecewise-linear networks: regions, cycles, manifolds, symbols, the flow in continuous time."""

from ._event_flow import EventExactFlow as EventExactFlow, sample_flow as sample_flow
from ._vector_field import (
    ContinuousALRNN as ContinuousALRNN,
    PiecewiseLinearField as PiecewiseLinearField,
)
