"""A cell with noise on its state, drawn from the keys it is handed."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._core.cell import Cell, RecurrentCell, TimedCell, initial_state, output, time_step
from .._core.check_annotations import checked
from .._core.check_cell import StepError, describe
from .._core.check_values import check_not_negative
from .._engine.blocks import BlockTriangularCell, tangent_blocks


class NoisyCell(RecurrentCell, TimedCell, BlockTriangularCell):
    r"""A cell with Gaussian noise on its state.

    $$h' = F(u, h) + \sigma \sqrt{dt}\, \xi, \qquad \xi \sim N(0, 1)$$

    for each number of the state, with the time step dt of the cell (1 if it has none): an Euler-Maruyama step. The input of
    a step is the pair of the cell's own input and a key, so a run takes `(inputs, jax.random.split(key, T))`, and
    `(None, keys)` for a cell without input. The same keys are the same noise, for any network and start.

    The noise is added and common to all neighbors of a state, so the Jacobian is that of the cell: exponents are those of
    the noise-driven system, which differ from those without noise because the run is another one. A negative $\lambda_1$ means
    that one noise makes all starts come together.

    **Arguments:** `cell`, and `scale`, $\sigma \ge 0$, in units of the state per root of a unit of time.

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
    def __init__(self, cell: Cell, scale: float | Array):
        self.cell = cell
        self.scale = check_not_negative("scale", scale)

    def __call__(self, input: tuple[PyTree, PRNGKeyArray], state: PyTree) -> PyTree:
        own, key = _split(input)
        return self._add_noise(key, self.cell(own, state))

    def blocks(self, input, state):
        own, key = _split(input)
        following, blocks = tangent_blocks(self.cell, own, state)
        return self._add_noise(key, following), blocks

    def _add_noise(self, key, state):
        leaves, structure = jax.tree.flatten(state)
        size = self.scale * jnp.sqrt(time_step(self.cell))

        def add(leaf, key):
            # Drawn in float32 whatever the dtype, so that precisions can be compared.
            noise = jr.normal(key, leaf.shape, jnp.float32).astype(leaf.dtype)
            return leaf + jnp.asarray(size, leaf.dtype) * noise

        keys = jr.split(key, len(leaves))
        return jax.tree.unflatten(structure, map(add, leaves, keys))

    def time_step(self) -> float | Array:
        return time_step(self.cell)

    def initial_state(self) -> PyTree:
        return initial_state(self.cell)

    def output(self, state):
        return output(self.cell, state)


def _split(input):
    if not isinstance(input, tuple) or len(input) != 2:
        got = "None" if input is None else describe(input)
        raise StepError(
            f"a NoisyCell takes the pair (input, key) at each step, got {got}; for a run pass "
            "(inputs, jax.random.split(key, num_steps)), with None for the inputs of a cell without input. A loop is closed "
            "inside: NoisyCell(ClosedLoop(cell, readout), scale)."
        )
    return input
