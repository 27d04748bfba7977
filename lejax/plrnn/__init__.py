"""Exact tools for piecewise-linear networks: regions, cycles, manifolds, symbols, the flow in continuous time."""

from ._affine_pieces import AffinePieces as AffinePieces, PieceManifold as PieceManifold
from ._basins import (
    BoundaryPoints as BoundaryPoints,
    basin_index as basin_index,
    bisect_basins as bisect_basins,
)
from ._homoclinic import Crossings as Crossings, crossings as crossings
from ._inverse import (
    InverseStep as InverseStep,
    Preimages as Preimages,
    inverse_step as inverse_step,
    preimages as preimages,
)
from ._manifolds import (
    distance_to_manifold as distance_to_manifold,
    stable_manifold as stable_manifold,
    unstable_manifold as unstable_manifold,
)
from ._polyline import Polyline as Polyline, PolylineManifold as PolylineManifold
from ._quality import ManifoldQuality as ManifoldQuality, manifold_quality as manifold_quality
