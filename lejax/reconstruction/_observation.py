"""Observation models: what is measured of a network's state, and which state a measurement speaks for."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, RecurrentCell, TimedCell, initial_state, time_step
from .._core.check_annotations import checked
from .._core.check_values import check_count


class Observation(eqx.Module):
    """From a state of M numbers to N that are measured, and back as far as that goes."""

    @abc.abstractmethod
    def __call__(self, state: Float[Array, " m"]) -> Float[Array, " n"]:
        """What is measured of a state."""
        raise NotImplementedError

    @abc.abstractmethod
    def estimate(self, observed: Float[Array, " n"]) -> Float[Array, " m"]:
        """The state according to a measurement; anything where `determined` is False."""
        raise NotImplementedError

    @abc.abstractmethod
    def determined(self) -> Bool[Array, " m"]:
        """Which units a measurement speaks for: those that teacher forcing may overwrite."""
        raise NotImplementedError

    def start(self, observed: Float[Array, " n"]) -> Float[Array, " m"]:
        """The state from which a run begins whose first measurement is known."""
        return self.estimate(observed)


class IdentityObservation(Observation):
    r"""The first N of M units are measured themselves; the others are hidden.

    $$x = (z_1 .. z_N), \qquad z_0 = (x_0, L x_0)$$

    **Arguments:** `num_observed` N and `state_size` M. `L` (M - N, N), a guess of the hidden units, is trained and starts
    as zero.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> observation = lejax.reconstruction.IdentityObservation(3, 20)
        >>> observation(jnp.arange(20.0)), observation.start(jnp.ones(3)).shape
        (Array([0., 1., 2.], dtype=...), (20,))
    """

    L: Float[Array, "hidden n"]

    @checked
    def __init__(self, num_observed: int, state_size: int, dtype=None):
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
    r"""A trained matrix between the state and what is measured.

    $$x = B z, \qquad \hat z = B^+ x$$

    **Arguments:** `B` (N, M). A measurement determines the whole state where M <= N; where M > N its estimate is the
    smallest state that would show it.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> observation = lejax.reconstruction.LinearObservation.draw(64, 16, key=jax.random.key(0))
        >>> z = jnp.arange(16.0)
        >>> bool(jnp.allclose(observation.estimate(observation(z)), z))
        True

    Hess, Monfared, Brenner & Durstewitz, ICML (2023).
    """

    B: Float[Array, "n m"]

    @checked
    def __init__(self, B: Array):
        self.B = jnp.asarray(B)
        if self.B.ndim != 2 or not jnp.issubdtype(self.B.dtype, jnp.floating):
            raise ValueError(
                f"B must be a floating-point matrix (N, M), got {self.B.dtype}{list(self.B.shape)}."
            )

    @classmethod
    @checked
    def draw(cls, num_observed: int, state_size: int, dtype=None, *, key: PRNGKeyArray):
        """`B` normal of variance 1 / M."""
        num_observed = check_count("num_observed", num_observed, 1)
        state_size = check_count("state_size", state_size, 1)
        dtype = dtype or jnp.result_type(float)
        return cls(jr.normal(key, (num_observed, state_size), dtype) * state_size**-0.5)

    def __call__(self, state):
        return self.B @ state

    def estimate(self, observed):
        return jnp.linalg.pinv(self.B) @ observed

    def determined(self):
        return jnp.ones(self.B.shape[1], bool)


class ObservedCell(RecurrentCell, TimedCell):
    r"""A cell and what is measured of it: a model of a series. Itself a cell, with the state of the one it holds.

    $$z_{t+1} = F(u_t, z_t), \qquad x_t = G(z_t)$$

    **Arguments:** `cell` F, whose state is one vector; `observation` G.

    `output(state)` is what is measured, `start(observed)` a state to begin from.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> cell = lejax.cells.ALRNN.draw(20, 2, key=jax.random.key(0))
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
