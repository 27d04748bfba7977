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
from ._cycles import Cycles as Cycles, find_cycles as find_cycles, refine_cycle as refine_cycle
from ._regions import find_regions as find_regions
from ._symbols import (
    BlockEntropies as BlockEntropies,
    Switches as Switches,
    SymbolTransitions as SymbolTransitions,
    block_codes as block_codes,
    block_entropies as block_entropies,
    find_switches as find_switches,
    region_codes as region_codes,
    symbol_transitions as symbol_transitions,
)
