"""A cell with noise on its state, drawn from the keys of its inputs."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import (
    Cell,
    RecurrentCell,
    TimedCell,
    initial_state,
    is_traced,
    output,
    ravel,
    size_of,
    time_step,
)
from .._core.check_annotations import checked
from .._core.check_cell import StepError, describe
from .._core.check_values import check_finite, check_not_negative
from .._engine.blocks import BlockTriangularCell, tangent_blocks


class NoisyCell(RecurrentCell, TimedCell, BlockTriangularCell):
    r"""A cell with additive Gaussian noise on its state: an Euler-Maruyama step.

    $$h' = F(u, h) + \sqrt{dt}\, L\, \xi, \qquad \xi \sim N(0, 1)$$

    with the time step dt of the cell (1 if it has none), on the state as one vector of d components. The covariance of
    the noise per unit of time is $L L^T$; for a number $\sigma$, L is $\sigma$ times the identity. The input of a step
    is the pair of the cell's own input and a key: a run takes `(inputs, jax.random.split(key, T))`, and `(None, keys)`
    for a cell without inputs. The same keys give the same noise for every network and initial state.

    The noise is the same for all neighbors of a state, so the Jacobian is that of the cell. The exponents are those of
    the random dynamical system; they differ from those without noise because the trajectory does. If $\lambda_1$ is
    negative, trajectories from all initial states converge under one realization of the noise.

    A number gives noise to every component of the state, to the last input of a `FeedThrough` too: a vector or a matrix
    with zeros there leaves it out.

    **Arguments:**

    - `cell`: F.
    - `scale`: $\sigma \ge 0$, a number; a vector (d,) with one $\sigma_i \ge 0$ for each component of the state; or a
        matrix L (d, d), such as `jnp.linalg.cholesky(covariance)`. In units of the state per root of a unit of time, in
        the order of `jax.flatten_util.ravel_pytree`.

    **Raises:**

    - `ValueError`: if `scale` is not a number, a vector or a square matrix, is not finite, or a $\sigma$ is negative.
    - `TypeError`: at a step, if the input is not a pair, or `scale` has not as many components as the state.

    **Numerics:** noise is drawn in float32 for every dtype, so that runs of different precision can be compared. A
    matrix costs O(d^2) per step.

    !!! example

        The spectrum of one network under inputs, closed to run on its own forecasts, and driven by noise:

        >>> import jax, jax.numpy as jnp, lejax
        >>> from lejax.cells import ClosedLoop, EchoStateCell, NoisyCell, fit_readout
        >>> series = lejax.unroll(lejax.systems.Henon(), jnp.zeros(2), num_steps=700)
        >>> cell = EchoStateCell(2, 40, spectral_radius=0.3, bias_scale=0.5, key=jax.random.key(0))
        >>> states = lejax.unroll(cell, cell.initial_state(), series[:-1])
        >>> loop = ClosedLoop(cell, fit_readout(states[100:], series[101:], penalty=1e-6))
        >>> keys = jax.random.split(jax.random.key(1), 600)
        >>> run = {"num_exponents": 1, "transient": 100}
        >>> driven = lejax.lyapunov_spectrum(cell, cell.initial_state(), series, **run)
        >>> closed = lejax.lyapunov_spectrum(loop, states[-1], num_steps=500, **run)
        >>> noisy = lejax.lyapunov_spectrum(NoisyCell(loop, 1e-3), states[-1], (None, keys), **run)
        >>> bool(driven.exponents[0] < 0), bool(closed.exponents[0] > 0), bool(noisy.exponents[0] > 0)
        (True, True, True)

    Arnold, Random Dynamical Systems (1998).
    """

    cell: Cell
    scale: float | Array

    @checked
    def __init__(
        self,
        cell: Cell,
        scale: float | Float[Array, ""] | Float[Array, " d"] | Float[Array, "d d"],
    ):
        self.cell = cell
        self.scale = _check_scale(scale)

    def __call__(self, input: tuple[PyTree, PRNGKeyArray], state: PyTree) -> PyTree:
        cell_input, key = _split(input)
        return self._add_noise(key, self.cell(cell_input, state))

    def blocks(self, input, state):
        cell_input, key = _split(input)
        new_state, blocks = tangent_blocks(self.cell, cell_input, state)
        return self._add_noise(key, new_state), blocks

    def _add_noise(self, key, state):
        leaves, structure = jax.tree.flatten(state)
        keys = jr.split(key, len(leaves))
        normal = [
            jr.normal(key, leaf.shape, jnp.float32).astype(leaf.dtype)
            for leaf, key in zip(leaves, keys, strict=True)
        ]
        normal = jax.tree.unflatten(structure, normal)
        root = jnp.sqrt(time_step(self.cell))
        if jnp.ndim(self.scale) == 0:
            size = self.scale * root
            return jax.tree.map(lambda x, xi: x + jnp.asarray(size, x.dtype) * xi, state, normal)
        vector, unravel = ravel(normal)
        self._check_size(state)
        factor = jnp.asarray(self.scale * root, vector.dtype)
        if factor.ndim == 1:
            noise = factor * vector
        else:
            noise = jnp.matmul(factor, vector, precision="highest")
        return jax.tree.map(jnp.add, state, unravel(noise))

    def _check_size(self, state):
        """Refuse a factor of another size than the state."""
        shape, size = jnp.shape(self.scale), size_of(state)
        if shape[0] != size:
            wanted = f"({size},)" if len(shape) == 1 else f"({size}, {size})"
            raise StepError(
                f"scale has shape {shape}, but a state of {size} components needs a number or shape {wanted}."
            )

    def time_step(self) -> float | Array:
        return time_step(self.cell)

    def initial_state(self) -> PyTree:
        return initial_state(self.cell)

    def output(self, state):
        return output(self.cell, state)


def _check_scale(scale: float | Array) -> float | Array:
    """A number or a vector of at least 0, or a square matrix."""
    shape = jnp.shape(scale)
    if len(shape) < 1:
        return check_not_negative("scale", scale)
    if len(shape) > 2 or shape[0] != shape[-1]:
        raise ValueError(
            f"scale must be a number, a vector (d,) or a square matrix (d, d), got shape {shape}."
        )
    check_finite("scale", scale)
    if len(shape) == 1 and not is_traced(scale) and np.any(np.asarray(scale) < 0):
        raise ValueError(f"scale must not be negative, got {scale}.")
    return jnp.asarray(scale)


def _split(input):
    """The cell's own input and the key."""
    if not isinstance(input, tuple) or len(input) != 2:
        got = "None" if input is None else describe(input)
        raise StepError(
            f"a NoisyCell takes the pair (input, key) at each step, got {got}; for a run pass "
            "(inputs, jax.random.split(key, num_steps)), with None for the inputs of a cell without input. Close a "
            "loop inside: NoisyCell(ClosedLoop(cell, readout), scale)."
        )
    return input
