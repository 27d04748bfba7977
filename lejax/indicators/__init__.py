"""Indicators of chaos and of regular dynamics, and properties of a run that exponents do not show."""

from ._alignment import log_alignment_index as log_alignment_index
from ._echo_state import EchoState as EchoState, echo_state_index as echo_state_index
from ._field import finite_time_exponent_field as finite_time_exponent_field
from ._transition_products import (
    TransientGrowth as TransientGrowth,
    TransitionProduct as TransitionProduct,
    transient_growth as transient_growth,
    transition_product as transition_product,
)
from ._two_trajectories import (
    LargestExponent as LargestExponent,
    two_trajectory_exponent as two_trajectory_exponent,
)
from ._zero_one import zero_one_test as zero_one_test


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
