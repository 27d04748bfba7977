"""Rate networks of low rank: perturbations of N units move in R dimensions and decay in the rest."""

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative, check_positive
from .._core.weights import make_from_weights
from .._engine.blocks import Block, BlockTriangularCell, DenseBlock, DiagonalBlock
from ._drive import activate, input_weights
from ._leaky_rate import LeakyRateCell


class LowRankRNNCell(LeakyRateCell, BlockTriangularCell):
    r"""The rate network of low rank, one Euler step of $\tau \dot x = -x + M N^T \phi(x) + W u + b$.

    $$x' = (1 - dt/\tau)\, x + \frac{dt}{\tau} \left(M N^T \phi(x) + W u + b\right)$$

    With H units and rank R, H - R exponents are exactly $\log|1 - dt/\tau| / dt$, and the other R are those of a system
    in R dimensions. With $q = dt/\tau$ and $D = \mathrm{diag}\, \phi'(x)$ the Jacobian is $J = (1 - q) I + q M N^T D$,
    so

    $$J M = M K, \qquad K = (1 - q) I + q N^T D M \quad (R \times R)$$

    at every state: all Jacobians map the span of the columns of M into itself and act on it as K. The other directions
    feed into that span, receive nothing from it, and decay. In a basis of the columns of M, completed by any other
    vectors, J is block triangular with the blocks K and $(1 - q) I$. The basis does not depend on the state, so the
    exponents of J are those of its blocks. Where columns of M depend on each other, K decays along the null space of M,
    and the number of decaying directions stays right. `lyapunov_spectrum` follows K.

    Exponents are per unit of time. `lejax.systems.Flow(cell.derivative, dt)` integrates the same network by Runge-Kutta
    steps; H - R of its exponents are $-1 / \tau$.

    **Arguments:**

    - `input_size`: the number of inputs I; 0 for an autonomous cell, called with `input=None`.
    - `hidden_size`: the number of units H.
    - `rank`: R, at most H.
    - `use_bias`: whether there is a bias b, by default `False`.
    - `activation`: $\phi$, a function without arrays of its own, by default `jax.numpy.tanh`. With `jax.nn.relu` the
        cell has a canonical form, see `lejax.piecewise_linear`.
    - `dtype`: of the weights, by default that of JAX.
    - `dt`: the time step, positive. A number is a setting, an array is a leaf that `grad` and `vmap` see.
    - `tau`: the time constant in the same unit of time, positive, by default 1; a setting or a leaf like `dt`.
    - `gain`: g, at least 0, by default 1.
    - `key`: of the weights. M is standard normal and $N = (M A + Z) / H$ with normal A and Z of standard deviations g
        and 1, so that $N^T M$ is about $A^T$; W and b are uniform in $\pm 1/\sqrt{H}$.

    **Fields:** (also the arguments of `LowRankRNNCell.from_weights`)

    - `M`: left factor of the couplings (H, R).
    - `N`: right factor of the couplings (H, R).
    - `weight_ih`: W (H, I).
    - `bias`: b (H,) or `None`.
    - `activation`, `dt`, `tau`: as above.

    **Raises:**

    - `ValueError`: if `rank` exceeds `hidden_size`.

    **Numerics:** a step costs O(H R^2) for K and O(R^3) for its frame, instead of O(H^3). Frames are in the coordinates
    of M's columns: asymptotic exponents are the same, those of finite times differ by $O(1/T)$ from those in the
    coordinates of the units.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.LowRankRNNCell(0, 50, 2, dt=0.1, gain=2.0, key=jax.random.key(0))
        >>> spectrum = lejax.lyapunov_spectrum(cell, jnp.ones(50), num_steps=200)
        >>> decay = jnp.log(0.9) / 0.1
        >>> int(jnp.sum(jnp.abs(spectrum.exponents - decay) < 1e-5))
        48

    Mastrogiuseppe & Ostojic, Neuron 99 (2018).
    """

    M: Float[Array, "h r"]
    N: Float[Array, "h r"]

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rank: int,
        use_bias: bool = False,
        activation: Callable[[Array], Array] = jnp.tanh,
        dtype=None,
        *,
        dt: float | Array,
        tau: float | Array = 1.0,
        gain: float | Array = 1.0,
        key: PRNGKeyArray,
    ):
        input_size = check_count("input_size", input_size, 0)
        hidden_size = check_count("hidden_size", hidden_size, 1)
        rank = check_count("rank", rank, 1)
        if rank > hidden_size:
            raise ValueError(f"rank is {rank}, but hidden_size only {hidden_size}.")
        dtype = dtype or jnp.result_type(float)
        key_ih, key_M, key_A, key_Z, key_bias = jr.split(key, 5)
        keys = key_ih, key_bias
        super().__init__(input_size, hidden_size, use_bias, activation, dtype, dt, tau, keys)
        self.M = jr.normal(key_M, (hidden_size, rank), dtype)
        overlap = check_not_negative("gain", gain) * jr.normal(key_A, (rank, rank), dtype)
        noise = jr.normal(key_Z, (hidden_size, rank), dtype)
        self.N = ((self.M @ overlap + noise) / hidden_size).astype(dtype)

    @classmethod
    @checked
    def from_weights(
        cls,
        *,
        M: Array,
        N: Array,
        weight_ih: Array | None = None,
        bias: Array | None = None,
        activation: Callable[[Array], Array] = jnp.tanh,
        dt: float | Array,
        tau: float | Array = 1.0,
    ):
        """A cell with the given weights, named and shaped as its fields; without `weight_ih` it is autonomous.

        **Raises:**

        - `ValueError`: if shapes do not fit each other, the rank exceeds the number of units, or a time is not
            positive.
        - `TypeError`: if an array is not real.
        """
        weights = {"M": M, "N": N, "weight_ih": input_weights(weight_ih, M), "bias": bias}
        times = {"dt": check_positive("dt", dt), "tau": check_positive("tau", tau)}
        cell = make_from_weights(cls, weights, activation=activation, **times)
        size, rank = cell.M.shape
        if rank > size:
            raise ValueError(f"M has shape {cell.M.shape}: its rank {rank} must be at most {size}.")
        return cell

    def _recur(self, rates):
        return self.M @ (self.N.T @ rates)

    def _coupling(self):
        return self.M @ self.N.T

    def blocks(self, input, state):
        rates, columns_of_M = activate(self.activation, state, self.M)
        rate = self._rate(state)
        reduced = self.N.T @ columns_of_M
        rank = self.M.shape[1]

        def tangent(columns):
            return (1 - rate) * columns + rate * (reduced @ columns)

        blocks: list[Block] = [DenseBlock(tangent, rank)]
        if rank < state.size:
            blocks.append(DiagonalBlock.of_entries(jnp.full(state.size - rank, 1 - rate)))
        return self._step(input, state, rates), tuple(blocks)
