"""Indicators of chaos and of its absence, what exponents are blind to, and how long forecasts last."""

from ._alignment import (
    log_alignment_index as log_alignment_index,
    smaller_alignment_index as smaller_alignment_index,
)
from ._echo_state import EchoState as EchoState, echo_state_index as echo_state_index
from ._field import finite_time_exponent_field as finite_time_exponent_field
from ._predictability import (
    lyapunov_time as lyapunov_time,
    predictability_horizon as predictability_horizon,
)
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
