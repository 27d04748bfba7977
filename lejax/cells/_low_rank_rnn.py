"""Rate networks of low rank: N units, of which perturbations move in R dimensions and decay in the rest."""

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count, check_not_negative
from .._engine.blocks import Block, BlockTriangularCell, DenseBlock, DiagonalBlock
from ._drive import activate
from ._leaky_rate import LeakyRateCell


class LowRankRNNCell(LeakyRateCell, BlockTriangularCell):
    r"""The rate network of low rank, one Euler step of $\tau \dot x = -x + M N^T \phi(x) + W u + b$.

    $$x' = (1 - dt/\tau)\, x + \frac{dt}{\tau} \left(M N^T \phi(x) + W u + b\right)$$

    With H units and rank R, H - R exponents are $\log|1 - dt/\tau| / dt$ exactly, and the other R are those of the system in
    R dimensions. With $q = dt/\tau$ and $D = \mathrm{diag}\, \phi'(x)$ the Jacobian is $J = (1 - q) I + q M N^T D$, so

    $$J M = M K, \qquad K = (1 - q) I + q N^T D M \quad (R \times R)$$

    at every state: the columns of M span a space that all Jacobians map into itself, and on it they act as K. What is
    beside it reaches that space but gets nothing from it and only decays: in a basis of the columns of M and any vectors that
    complete them J is block triangular with blocks K and $(1 - q) I$, and the basis does not move, so exponents are
    theirs. Where columns of M depend on each other, K decays along what they have in common, and the count stays right.
    `lyapunov_spectrum` follows K.

    **Arguments:** `input_size` I (0: autonomous), `hidden_size` H, `rank` R, `use_bias` (drawn as in `RNNCell`),
    `activation` $\phi$ (a function without arrays of its own), `dt` and `tau` in the same unit of time, `gain` g, `dtype`,
    `key`. M is standard normal and $N = (M A + Z) / H$ with A and Z normal, of standard deviations g and 1: at the origin
    $N^T M$ is about $A^T$. `dt` and `tau` given as floats are settings, given as arrays they are leaves that `grad` and `vmap` see.
    Exponents come per unit of time. `lejax.systems.Flow(cell.derivative, dt)` is the same network integrated by Runge-Kutta
    steps, for which H - R exponents are $-1 / \tau$.

    **Numerics:** a step costs O(H R^2) for K and O(R^3) for its frame, against O(H^3) in general. Frames stand in the
    coordinates of M's columns: exponents are the same, those of finite times differ by $O(1/T)$ from those in the units' own.

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

    def _recur(self, rates):
        return self.M @ (self.N.T @ rates)

    def blocks(self, input, state):
        rates, moved = activate(self.activation, state, self.M)
        rate = self._rate(state)
        reduced = self.N.T @ moved
        rank = self.M.shape[1]

        def tangent(columns):
            return (1 - rate) * columns + rate * (reduced @ columns)

        blocks: list[Block] = [DenseBlock(tangent, rank)]
        if rank < state.size:
            blocks.append(DiagonalBlock.of_entries(jnp.full(state.size - rank, 1 - rate)))
        return self._step(input, state, rates), tuple(blocks)
