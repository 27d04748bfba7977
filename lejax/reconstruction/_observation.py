"""Observation models: maps from a network's state to the measured variables, and estimates of the state."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, RecurrentCell, TimedCell, initial_state, time_step
from .._core.check_annotations import checked
from .._core.check_values import check_count
from .._core.weights import make_from_weights


class Observation(eqx.Module):
    """The base class of observation models: maps from a state of M units to N measured variables.

    Its methods are the map itself, an estimate of the state from a measurement, and the units that a measurement
    determines.
    """

    @abc.abstractmethod
    def __call__(self, state: Float[Array, " m"]) -> Float[Array, " n"]:
        """The measurement of a state."""
        raise NotImplementedError

    @abc.abstractmethod
    def estimate(self, observed: Float[Array, " n"]) -> Float[Array, " m"]:
        """The state estimated from a measurement; arbitrary in units where `determined` is False."""
        raise NotImplementedError

    @abc.abstractmethod
    def determined(self) -> Bool[Array, " m"]:
        """Which units a measurement determines: those that teacher forcing may overwrite."""
        raise NotImplementedError

    def start(self, observed: Float[Array, " n"]) -> Float[Array, " m"]:
        """The initial state of a run, from its first measurement."""
        return self.estimate(observed)


class IdentityObservation(Observation):
    r"""An observation of the first N of M units; the others are hidden.

    $$x = (z_1 .. z_N), \qquad z_0 = (x_0, L x_0)$$

    **Arguments:**

    - `num_observed`: N, the measured units.
    - `state_size`: M, all units.
    - `dtype`: that of `L`. Default: JAX's default floating-point type.

    **Fields:**

    - `L` (M - N, N): a trained matrix, which estimates the hidden units of an initial state. It starts as zero.

    **Raises:**

    - `ValueError`: if `num_observed` is above `state_size`, or either is below 1.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> observation = lejax.reconstruction.IdentityObservation(3, 20)
        >>> observation(jnp.arange(20.0)), observation.start(jnp.ones(3)).shape
        (Array([0., 1., 2.], dtype=...), (20,))
    """

    L: Float[Array, "hidden n"]

    @checked
    def __init__(self, num_observed: int, state_size: int, *, dtype=None):
        num_observed = check_count("num_observed", num_observed, 1)
        state_size = check_count("state_size", state_size, 1)
        if num_observed > state_size:
            raise ValueError(
                f"num_observed is {num_observed}, but the state has only {state_size} units."
            )
        self.L = jnp.zeros((state_size - num_observed, num_observed), dtype)

    def __call__(self, state):
        return state[: self.L.shape[1]]

    def estimate(self, observed):
        return jnp.concatenate([observed, jnp.zeros_like(observed, shape=self.L.shape[0])])

    def determined(self):
        return jnp.arange(sum(self.L.shape)) < self.L.shape[1]

    def start(self, observed):
        return jnp.concatenate([observed, self.L @ observed])


class LinearObservation(Observation):
    r"""An observation by a trained matrix.

    $$x = B z, \qquad \hat z = B^+ x$$

    For M <= N a measurement determines the complete state. For M > N the estimate is the state of least norm that has
    this measurement, and teacher forcing overwrites all units with it.

    **Arguments:**

    - `num_observed`: N, the measured variables.
    - `state_size`: M, the units of the state.
    - `dtype`: that of `B`. Default: JAX's default floating-point type.
    - `key`: the random key of `B`, whose entries are normal with variance 1 / M.

    **Fields:** (also the argument of `LinearObservation.from_weights`)

    - `B` (N, M): the matrix.

    **Raises:**

    - `ValueError`: if `num_observed` or `state_size` is below 1.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> observation = lejax.reconstruction.LinearObservation(64, 16, key=jax.random.key(0))
        >>> z = jnp.arange(16.0)
        >>> bool(jnp.allclose(observation.estimate(observation(z)), z))
        True

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    B: Float[Array, "n m"]

    @checked
    def __init__(self, num_observed: int, state_size: int, *, dtype=None, key: PRNGKeyArray):
        num_observed = check_count("num_observed", num_observed, 1)
        state_size = check_count("state_size", state_size, 1)
        dtype = dtype or jnp.result_type(float)
        self.B = jr.normal(key, (num_observed, state_size), dtype) * state_size**-0.5

    @classmethod
    @checked
    def from_weights(cls, *, B: Array):
        """An observation by this matrix (N, M).

        **Raises:**

        - `ValueError`: if `B` is not a matrix.
        - `TypeError`: if `B` is not real.
        """
        return make_from_weights(cls, {"B": B})

    def __call__(self, state):
        return self.B @ state

    def estimate(self, observed):
        return jnp.linalg.pinv(self.B) @ observed

    def determined(self):
        return jnp.ones(self.B.shape[1], bool)


class ObservedCell(RecurrentCell, TimedCell):
    r"""A cell with an observation model: a model of a series. It is a cell itself, with the state of the cell it holds.

    $$z_{t+1} = F(u_t, z_t), \qquad x_t = G(z_t)$$

    `output(state)` is the measurement of a state, `start(observed)` an initial state from a measurement.

    **Arguments:**

    - `cell`: F, a cell whose state is one vector.
    - `observation`: G, an `Observation`.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.ALRNN(20, 2, key=jax.random.key(0))
        >>> model = lejax.reconstruction.ObservedCell(cell, lejax.reconstruction.IdentityObservation(3, 20))
        >>> states = lejax.unroll(model, model.start(jnp.ones(3)), num_steps=100)
        >>> jax.vmap(model.output)(states).shape
        (100, 3)
    """

    cell: Cell
    observation: Observation

    def __call__(self, input: PyTree, state: Float[Array, " m"]) -> Float[Array, " m"]:
        return self.cell(input, state)

    def output(self, state):
        return self.observation(state)

    def start(self, observed: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.observation.start(observed)

    def initial_state(self):
        return initial_state(self.cell)

    def time_step(self):
        return time_step(self.cell)
