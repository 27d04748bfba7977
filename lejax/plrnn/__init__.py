"""Exact tools for piecewise-linear maps and vector fields. All accept what `lejax.piecewise_linear` accepts.

Regions and symbols:

- `_regions`: enumerate the regions of a network.
- `_symbols`: trajectories as symbol sequences, their transitions and block entropies.

Cycles:

- `_cycles`: find the cycles of one period, and refine a cycle differentiably.
- `_necklaces`: enumerate the words of regions that a cycle may have.
- `_word_search`: search words for cycles where there are too many to enumerate.
- `_verification`: verify candidates in double precision, and list each cycle once.
- `_float64_map`: a map in double precision on the host.

Manifolds:

- `_manifolds`: stable and unstable manifolds of saddles, and distances to them.
- `_saddle`: refine a saddle and find its invariant subspaces.
- `_polyline`: one-dimensional manifolds, grown segment by segment.
- `_segments`: segments under a map: cut, clipped and pulled back.
- `_affine_pieces`: manifolds of any dimension as affine pieces.
- `_inverse`: preimages of a state.
- `_manifold_quality`: the statistic Delta of a manifold.
- `_homoclinic`: homoclinic and heteroclinic points.

Basins:

- `_basins`: the basin of a state, and points on basin boundaries.

Flows that are exact between events, in continuous time:

- `_vector_field`: piecewise-linear vector fields.
- `_event_flow`: their time-`dt` map as a cell, and states at given times.
- `_taylor_series`: their solution by Taylor series from switch to switch.
- `_bernstein`: the certified first zero of polynomials, which locates a switch.
- `_equilibria`: all equilibria of a field.
"""

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


def __dir__() -> list[str]:
    return __all__
