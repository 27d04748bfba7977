"""Over how many steps a gradient changes its size."""

import math

import numpy as np
from jaxtyping import Array, Float

from .._core.statistics import namespace_of


def gradient_horizon(
    largest: Float[Array, "..."] | np.ndarray, dt: Float[Array, "..."] | float
) -> Float[Array, "..."]:
    """ln 10 / (|lambda_1| dt): the steps over which the norm of a gradient falls or grows tenfold; inf if never.

    Arrays of JAX or of NumPy.
    """
    xp = namespace_of(largest)
    growth = xp.abs(largest) * dt  # a step
    is_zero = growth == 0
    return xp.where(is_zero, xp.inf, math.log(10) / xp.where(is_zero, 1, growth))
