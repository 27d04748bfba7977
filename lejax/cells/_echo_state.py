"""The echo state network: a random recurrent layer with a trained readout."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell, TangentCell, is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative, check_positive
from .._core.eigenvalues import eigenvalues
from .._core.weights import make_from_weights
from .._engine.push import tangent_dtype
from ._drive import drive, input_weights


class EchoStateCell(RecurrentCell, TangentCell):
    r"""The leaky echo state network, a reservoir.

    $$h' = (1 - a)\, h + a \tanh(W h + W_{in} u + b)$$

    Near the origin, without input and bias, $\lambda_1 = \log \max |1 - a + a\, \mathrm{eig}\, W|$. A driven reservoir
    forgets its initial state if $\lambda_1 < 0$ along the driven run, whatever the spectral radius is; see
    `lejax.indicators.echo_state_index`. `fit_readout` trains a readout of its states.

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units H.
    - `dtype`: of the weights, by default that of JAX.
    - `leak`: a in (0, 1], by default 1. A number is a setting, an array is a leaf that `grad` and `vmap` see.
    - `spectral_radius`: of W, positive, by default 0.9.
    - `density`: the fraction of entries of W that are not zero, in (0, 1], by default 1.
    - `input_scale`: half the width of the uniform distribution of $W_{in}$, by default 1.
    - `bias_scale`: half the width of the uniform distribution of b, by default 0.
    - `key`: of the weights. W is standard normal before it is scaled, and stored dense.

    **Fields:** (also the arguments of `EchoStateCell.from_weights`)

    - `weight_ih`: $W_{in}$ (H, I).
    - `weight_hh`: W (H, H).
    - `bias`: b (H,).
    - `leak`: a.

    **Raises:**

    - `ValueError`: if the connections of a sparse W close no cycle, so that its spectral radius is 0; under `jit` and
        `vmap` the weights are NaN then.

    **Numerics:** scaling W needs its eigenvalues, $O(H^3)$ on the host; on an accelerator under `jit` $O(H^4)$.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.EchoStateCell(1, 50, spectral_radius=0.8, key=jax.random.key(0))
        >>> silence = jnp.zeros((1100, 1))
        >>> spectrum = lejax.lyapunov_spectrum(
        ...     cell, cell.initial_state(), silence, num_exponents=1, transient=100
        ... )
        >>> bool(jnp.abs(spectrum.exponents[0] - jnp.log(0.8)) < 0.01)
        True

    Jaeger, GMD Report 148 (2001); Jaeger, Lukosevicius, Popovici & Siewert, Neural Networks 20 (2007).
    """

    weight_ih: Float[Array, "h i"]
    weight_hh: Float[Array, "h h"]
    bias: Float[Array, " h"]
    leak: float | Array

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dtype=None,
        *,
        leak: float | Array = 1.0,
        spectral_radius: float | Array = 0.9,
        density: float | Array = 1.0,
        input_scale: float | Array = 1.0,
        bias_scale: float | Array = 0.0,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        hidden_size = check_count("hidden_size", hidden_size, 1)
        dtype = dtype or jnp.result_type(float)
        key_ih, key_hh, key_mask, key_bias = jr.split(key, 4)
        square = jr.normal(key_hh, (hidden_size, hidden_size), dtype)
        kept = jr.bernoulli(key_mask, _check_share("density", density), square.shape)
        radius = check_positive("spectral_radius", spectral_radius)
        self.weight_hh = (radius * _normalized(jnp.where(kept, square, 0))).astype(dtype)
        shapes = (hidden_size, input_size), (hidden_size,)
        self.weight_ih = (
            check_not_negative("input_scale", input_scale)
            * jr.uniform(key_ih, shapes[0], dtype, -1)
        ).astype(dtype)
        self.bias = (
            check_not_negative("bias_scale", bias_scale)
            * jr.uniform(key_bias, shapes[1], dtype, -1)
        ).astype(dtype)
        self.leak = _check_share("leak", leak)

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        weight_hh: Array,
        weight_ih: Array | None = None,
        bias: Array | None = None,
        leak: float | Array = 1.0,
    ):
        """A cell with the given weights, named and shaped as its fields.

        Without `weight_ih` the cell is autonomous; without `bias` the bias is zero.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, or `leak` is not in (0, 1].
        - `TypeError`: if an array is not real.
        """
        weight_ih = input_weights(weight_ih, weight_hh)
        if bias is None:
            bias = jnp.zeros(jnp.shape(weight_hh)[:1], jnp.result_type(weight_hh))
        weights = {"weight_hh": weight_hh, "weight_ih": weight_ih, "bias": bias}
        return make_from_weights(cls, weights, leak=_check_share("leak", leak))

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        leak = jnp.asarray(self.leak, state.dtype)
        return (1 - leak) * state + leak * self._rates(input, state)

    def push_forward(self, input, state, tangent):
        leak, rates = jnp.asarray(self.leak, state.dtype), self._rates(input, state)
        pushed = leak * (1 - rates**2)[:, None] * (self.weight_hh @ tangent)
        return (1 - leak) * state + leak * rates, (1 - leak) * tangent + pushed

    def _rates(self, input, state):
        return jnp.tanh(self.weight_hh @ state + drive(self.weight_ih, input) + self.bias)

    def initial_state(self) -> Float[Array, " h"]:
        return jnp.zeros(self.weight_hh.shape[0], self.weight_hh.dtype)


def _check_share(name: str, value: float | Array) -> float | Array:
    """A number in (0, 1]."""
    check_positive(name, value)
    if not is_traced(value) and value > 1:
        raise ValueError(f"{name} must be at most 1, got {value}.")
    return value


def _normalized(weight: Float[Array, "h h"]) -> Float[Array, "h h"]:
    """The matrix divided by its spectral radius."""
    dtype = tangent_dtype(weight.dtype)  # LAPACK supports no smaller dtype
    if is_traced(weight):
        return weight / jnp.max(jnp.abs(eigenvalues(weight.astype(dtype))))
    radius = np.max(np.abs(np.linalg.eigvals(np.asarray(weight, np.float64))))
    if not radius > 0:
        count = int(np.count_nonzero(np.asarray(weight)))
        raise ValueError(
            f"the {count} connections drawn between {weight.shape[0]} units close no cycle, so W has a spectral radius "
            "of 0 and cannot be scaled; use a larger density."
        )
    return weight / jnp.asarray(radius, dtype)
