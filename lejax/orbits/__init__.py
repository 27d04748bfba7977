"""Fixed and slow points, periodic orbits, their stability, their continuation and bifurcations."""

from ._bifurcations import Bifurcation as Bifurcation
from ._continuation import (
    Branch as Branch,
    PseudoArclength as PseudoArclength,
    continue_orbit as continue_orbit,
)
from ._diagram import OrbitDiagram as OrbitDiagram, orbit_diagram as orbit_diagram
from ._fixed_points import (
    FixedPoints as FixedPoints,
    SpeedMinimization as SpeedMinimization,
    find_fixed_points as find_fixed_points,
)
from ._periodic_orbits import (
    PeriodicOrbits as PeriodicOrbits,
    find_periodic_orbits as find_periodic_orbits,
    floquet_multipliers as floquet_multipliers,
)
from ._search import NewtonSearch as NewtonSearch
from ._stability import Stability as Stability, linear_stability as linear_stability


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
