"""The echo state network: a random recurrent layer of which only a readout is trained."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import RecurrentCell, TangentCell, is_traced
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative, check_positive
from .._engine.push import tangent_dtype
from ._drive import drive


class EchoStateCell(RecurrentCell, TangentCell):
    r"""The leaky echo state network, a reservoir.

    $$h' = (1 - a)\, h + a \tanh(W h + W_{in} u + b)$$

    Near the origin, without input and bias, $\lambda_1 = \log \max |1 - a + a\, \mathrm{eig}\, W|$. What decides whether a
    driven reservoir forgets its start is $\lambda_1$ along the driven run, not the spectral radius; see
    `lejax.indicators.echo_state_index`. A readout of its states is trained by `fit_readout`.

    **Arguments:** `input_size` I (0: autonomous), `hidden_size` H, `leak` a in (0, 1], `spectral_radius` of W, `density` the
    share of entries of W that are not zero, in (0, 1], `input_scale` and `bias_scale` the half widths of the uniform
    distributions of $W_{in}$ and b, `dtype`, `key`. W is drawn standard normal and stored dense. A `leak` given as a float is
    a setting, given as an array it is a leaf that `grad` and `vmap` see.

    **Numerics:** scaling W needs its eigenvalues, `jnp.linalg.eigvals`, which may need a CPU. A W so sparse
    that its connections close no cycle has a radius of 0 and is refused; under `jit` and `vmap` its weights are NaN.

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
        self.weight_hh = (radius * _of_radius_one(jnp.where(kept, square, 0))).astype(dtype)
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
    check_positive(name, value)
    if not is_traced(value) and value > 1:
        raise ValueError(f"{name} must be at most 1, got {value}.")
    return value


def _of_radius_one(weight: Float[Array, "h h"]) -> Float[Array, "h h"]:
    high = weight.astype(tangent_dtype(weight.dtype))  # LAPACK knows nothing smaller
    radius = jnp.max(jnp.abs(jnp.linalg.eigvals(high)))
    if not is_traced(radius) and not radius > 0:
        count = int(np.count_nonzero(np.asarray(weight)))
        raise ValueError(
            f"the {count} connections drawn between {weight.shape[0]} units close no cycle, so W has a spectral radius of 0 "
            "and cannot be scaled; use a larger density."
        )
    return weight / radius
