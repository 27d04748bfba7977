"""Ready functions of exponents for a penalty: quantities, and their distance from a band."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core.cell import is_traced
from .._core.check_annotations import check_fields
from .._core.check_values import check_count


Quantity = Callable[[Float[Array, " k"]], Float[Array, "..."]]


class ExponentAt(eqx.Module):
    r"""One exponent of a spectrum, as a function of the exponents.

    $$q = \lambda_{i+1}$$

    **Arguments:**

    - `index`: i, counted from 0: 0 is the largest exponent.

    **Raises:**

    - `ValueError`: if `index` is negative; when called, if there are too few exponents.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.training.ExponentAt(1)(jnp.array([0.5, -0.25, -1.0])))
        -0.25
    """

    index: int = eqx.field(static=True, converter=lambda i: check_count("index", i, 0))

    def __call__(self, exponents: Float[Array, " k"]) -> Float[Array, ""]:
        _check_enough("index", self.index, self.index + 1, exponents)
        return exponents[self.index]


class ExponentGap(eqx.Module):
    r"""The gap between two exponents of a spectrum, as a function of the exponents.

    $$q = \lambda_{i+1} - \lambda_{j+1}$$

    A gap of 0 is a pair of directions that grow alike. Where exponents are equal, each gradient is that of the
    direction that the frame gives it: it is finite, and in sum right.

    **Arguments:**

    - `upper`: i, the index of the exponent that is larger, counted from 0; 0 by default.
    - `lower`: j, the index of the other; 1 by default.

    **Raises:**

    - `ValueError`: if an index is negative, or `lower` does not exceed `upper`; when called, if there are too few
        exponents.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> print(lejax.training.ExponentGap()(jnp.array([0.5, -0.25, -1.0])))
        0.75
    """

    upper: int = eqx.field(static=True, converter=lambda i: check_count("upper", i, 0), default=0)
    lower: int = eqx.field(static=True, converter=lambda i: check_count("lower", i, 0), default=1)

    def __check_init__(self):
        if self.lower <= self.upper:
            raise ValueError(
                f"lower must exceed upper, since exponents descend, got {self.lower} and {self.upper}."
            )

    def __call__(self, exponents: Float[Array, " k"]) -> Float[Array, ""]:
        _check_enough("lower", self.lower, self.lower + 1, exponents)
        return exponents[self.upper] - exponents[self.lower]


class VolumeGrowth(eqx.Module):
    r"""The growth rate of volumes of a dimension, as a function of the exponents.

    $$q(D) = \sum_{i \le \lfloor D \rfloor} \lambda_i + (D - \lfloor D \rfloor)\, \lambda_{\lfloor D \rfloor + 1}$$

    It is zero where D is the Kaplan-Yorke dimension, positive below and negative above it. A penalty on it therefore
    sets the dimension to D, or bounds it, and unlike the dimension it has a gradient everywhere: the dimension is 0
    wherever $\lambda_1 < 0$, jumps to 1 at $\lambda_1 = 0$, and is unknown from too few exponents. For a whole number D
    it is the sum of the first D exponents, $\lambda_1$ for D = 1.

    **Arguments:**

    - `dimension`: D, positive; the next whole number is how many exponents it needs.

    **Raises:**

    - `ValueError`: if `dimension` is not positive and finite; when called, if there are too few exponents.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lorenz = jnp.array([0.9056, 0.0, -14.572])
        >>> dimension = lejax.kaplan_yorke_dimension(lorenz)
        >>> print(abs(lejax.training.VolumeGrowth(dimension)(lorenz)) < 1e-6)
        True

    Frederickson, Kaplan, Yorke & Yorke, J. Differ. Equ. 49 (1983).
    """

    dimension: float | Float[Array, ""]

    def __check_init__(self):
        check_fields(self)
        if not is_traced(self.dimension) and not 0 < self.dimension < np.inf:
            raise ValueError(f"dimension must be positive and finite, got {self.dimension}.")

    def __call__(self, exponents: Float[Array, " k"]) -> Float[Array, ""]:
        if not is_traced(self.dimension):
            needed = int(np.ceil(self.dimension))
            _check_enough("dimension", self.dimension, needed, exponents)
        places = jnp.arange(len(exponents)).astype(exponents.dtype)
        shares = jnp.clip(jnp.asarray(self.dimension, exponents.dtype) - places, 0, 1)
        # A share of 0 times the -inf of a lost direction would be NaN.
        counted = jnp.where(shares > 0, exponents, 0)
        return jnp.sum(shares * counted)


class BandPenalty(eqx.Module):
    r"""The squared distance of a quantity from a band, as a function of the exponents, for a penalty.

    $$f = \max(q - q_\mathrm{upper}, 0)^2 + \max(q_\mathrm{lower} - q, 0)^2$$

    Equal ends are a target, one end is a bound. The derivative is continuous, and 0 inside the band.

    **Arguments:**

    - `quantity`: q, a function of the exponents (k,): an `ExponentAt`, an `ExponentGap`, a `VolumeGrowth`,
        `lejax.kolmogorov_sinai_entropy` (the sum of the positive exponents), or your own. By default each exponent.
    - `lower`: the lower end of the band, none by default.
    - `upper`: the upper end of the band, none by default.

    **Raises:**

    - `ValueError`: if neither end is given, or `lower` exceeds `upper`.
    - `TypeError`: if `quantity` is no function.

    **Numerics:** for `spectrum_penalty` and `batch_penalty`. By default lost directions do not count; other quantities
    see the constant that stands for a lost direction, far below every band: compute no more exponents than
    the network has, or clip the gradient. The mean is taken over a quantity of several values, such as
    `lambda exponents: exponents[2:5]`.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> training, exponents = lejax.training, jnp.array([0.5, -0.25, -1.0])
        >>> bound = training.BandPenalty(training.ExponentAt(0), upper=0.25)  # no strong chaos
        >>> dimension = training.BandPenalty(training.VolumeGrowth(2.5), lower=0.0, upper=0.0)  # is 2.5
        >>> each = training.BandPenalty(lower=-0.5)  # a long memory in each direction
        >>> print(bound(exponents), dimension(exponents), each(exponents))
        0.0625 0.0625 [0.   0.   0.25]
    """

    quantity: Quantity | None = None
    lower: float | Float[Array, ""] = -float("inf")
    upper: float | Float[Array, ""] = float("inf")

    def __check_init__(self):
        if self.quantity is not None and not callable(self.quantity):
            raise TypeError(
                f"quantity must be a function of the exponents, such as training.ExponentAt(0), got {self.quantity!r}."
            )
        check_fields(self)
        if is_traced((self.lower, self.upper)):
            return
        if not self.lower <= self.upper:
            raise ValueError(
                f"lower must not exceed upper, got lower={self.lower} and upper={self.upper}."
            )
        if np.isneginf(self.lower) and np.isposinf(self.upper):
            raise ValueError("a band needs an end: give lower, upper or both.")

    def __call__(self, exponents: Float[Array, " k"]) -> Float[Array, " k"] | Float[Array, ""]:
        value = exponents if self.quantity is None else jnp.asarray(self.quantity(exponents))
        lower, upper = (jnp.asarray(end, value.dtype) for end in (self.lower, self.upper))
        distance = jax.nn.relu(value - upper) ** 2 + jax.nn.relu(lower - value) ** 2
        return distance if distance.shape in ((), exponents.shape) else jnp.mean(distance)


def _check_enough(name: str, value: object, needed: int, exponents: Float[Array, " k"]) -> None:
    """Refuse a quantity of exponents that were not computed."""
    if needed > len(exponents):
        raise ValueError(
            f"{name} is {value}, which needs {needed} exponents, but there are {len(exponents)}: "
            f"set num_exponents={needed} or more."
        )
