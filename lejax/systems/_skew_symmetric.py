"""The network with skew-symmetric weights: a flow that conserves an energy."""

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.cell import VectorField
from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative
from .._core.weights import make_from_weights


class SkewRNN(VectorField):
    r"""The continuous network with skew-symmetric weights.

    $$\dot x = W \tanh(x), \qquad W = G - G^T$$

    It conserves the energy $V = \sum_i \log\cosh x_i$, since $\dot x = W \nabla V$: a Hamiltonian flow with W as
    symplectic matrix. Therefore volumes are conserved, exponents come in pairs of opposite sign, and at least two are
    0. On quasi-periodic orbits all are 0; orbits may be chaotic.

    **Arguments:**

    - `hidden_size`: H, the size of the state.
    - `dtype`: of the weights; JAX's default float if `None`.
    - `gain`: g; the entries of W have variance $g^2 / H$; 1 by default.
    - `key`: for the random weights.

    **Fields:**

    - `G`: (H, H); W is skew-symmetric for every G. The property `weight` is W.

    **Raises:**

    - `ValueError`: if `hidden_size` is less than 1 or `gain` is negative or not finite.

    **Numerics:** the integration should conserve V. `Flow` does so with an error of O(dt^4); under Euler steps V grows.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> field = lejax.systems.SkewRNN(6, key=jax.random.key(0))
        >>> start = jnp.linspace(-1.0, 1.0, 6)
        >>> states = lejax.unroll(lejax.systems.Flow(field, dt=0.05), start, num_steps=400)
        >>> bool(jnp.abs(field.energy(states[-1]) - field.energy(start)) < 1e-4)
        True

    Casoni, Guidi, Betti, Melacci & Gori, International Joint Conference on Neural Networks (2025).
    """

    G: Float[Array, "h h"]

    @checked
    def __init__(
        self, hidden_size: int, dtype=None, *, gain: float | Array = 1.0, key: PRNGKeyArray
    ):
        hidden_size = check_count("hidden_size", hidden_size, 1)
        dtype = dtype or jnp.result_type(float)
        square = jr.normal(key, (hidden_size, hidden_size), dtype)
        self.G = (check_not_negative("gain", gain) * (2 * hidden_size) ** -0.5 * square).astype(
            dtype
        )

    @classmethod
    @checked
    def from_weights(cls, *, G: Array):
        """A field with this array, (H, H).

        **Raises:**

        - `ValueError`: if `G` is not square.
        - `TypeError`: if `G` is not real.
        """
        return make_from_weights(cls, {"G": G})

    @property
    def weight(self) -> Float[Array, "h h"]:
        return self.G - self.G.T

    def __call__(self, input: None, state: Float[Array, " h"]) -> Float[Array, " h"]:
        return self.weight @ jnp.tanh(state)

    def energy(self, state: Float[Array, " h"]) -> Float[Array, ""]:
        r"""The conserved $V = \sum_i \log\cosh x_i$, without overflow."""
        return jnp.sum(jnp.logaddexp(state, -state) - jnp.log(2).astype(state.dtype))
