"""Exact tools for piecewise-linear networks: regions, cycles, manifolds, symbols, the flow in continuous time."""

from ._affine_pieces import (
    AffinePieces as AffinePieces,
    AffinePiecesManifold as AffinePiecesManifold,
)
from ._basins import (
    BoundaryPoints as BoundaryPoints,
    basin_index as basin_index,
    bisect_basins as bisect_basins,
)
from ._cycles import Cycles as Cycles, find_cycles as find_cycles, refine_cycle as refine_cycle
from ._equilibria import Equilibria as Equilibria, find_equilibria as find_equilibria
from ._event_flow import EventExactFlow as EventExactFlow, sample_flow as sample_flow
from ._homoclinic import Crossings as Crossings, crossings as crossings
from ._inverse import (
    InverseStep as InverseStep,
    Preimages as Preimages,
    inverse_step as inverse_step,
    preimages as preimages,
)
from ._manifold_quality import (
    ManifoldQuality as ManifoldQuality,
    manifold_quality as manifold_quality,
)
from ._manifolds import (
    distance_to_manifold as distance_to_manifold,
    stable_manifold as stable_manifold,
    unstable_manifold as unstable_manifold,
)
from ._polyline import Polyline as Polyline, PolylineManifold as PolylineManifold
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
from ._vector_field import (
    ContinuousALRNN as ContinuousALRNN,
    PiecewiseLinearField as PiecewiseLinearField,
)


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
