"""The abstract base class of leaky rate networks."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core.cell import RecurrentCell, TimedCell
from .._core.check_values import check_positive
from .._core.piecewise_linear import PiecewiseLinearCell, PiecewiseLinearMap
from ._drive import check_relu, drive, uniform


class LeakyRateCell(RecurrentCell, TimedCell, PiecewiseLinearCell):
    r"""One Euler step of $\tau \dot x = -x + J \phi(x) + W u + b$ with a coupling matrix J of any form."""

    weight_ih: Float[Array, "h i"]
    bias: Float[Array, " h"] | None
    dt: float | Array
    tau: float | Array
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, input_size, hidden_size, use_bias, activation, dtype, dt, tau, keys):
        """All fields except those of J; `keys` are those of W and b."""
        self.weight_ih = uniform(keys[0], (hidden_size, input_size), hidden_size, dtype)
        self.bias = uniform(keys[1], (hidden_size,), hidden_size, dtype) if use_bias else None
        self.dt = check_positive("dt", dt)
        self.tau = check_positive("tau", tau)
        self.activation = activation

    @abc.abstractmethod
    def _recur(self, rates: Float[Array, "h ..."]) -> Float[Array, "h ..."]:
        """J times rates, or times the columns of a matrix."""
        raise NotImplementedError

    @abc.abstractmethod
    def _coupling(self) -> Float[Array, "h h"]:
        """J as a dense matrix."""
        raise NotImplementedError

    def __call__(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        return self._step(input, state, self.activation(state))

    def derivative(
        self, input: Float[Array, " i"] | None, state: Float[Array, " h"]
    ) -> Float[Array, " h"]:
        """dx/dt, for `lejax.systems.Flow`."""
        target = self._target(input, self.activation(state))
        return (target - state) / jnp.asarray(self.tau, state.dtype)

    def canonical(self, input: Float[Array, " i"] | None = None) -> PiecewiseLinearMap:
        check_relu(self.activation)
        zeros = self.initial_state()
        eye, rate = jnp.eye(zeros.size, dtype=zeros.dtype), self._rate(zeros)
        offset = self._step(input, zeros, zeros)
        return PiecewiseLinearMap((1 - rate) * eye, rate * self._coupling(), eye, offset, zeros)

    def _step(self, input, state, rates):
        rate = self._rate(state)
        return (1 - rate) * state + rate * self._target(input, rates)

    def _target(self, input, rates):
        """What the state relaxes to: J times the rates, plus W u + b."""
        total = self._recur(rates) + drive(self.weight_ih, input)
        return total if self.bias is None else total + self.bias

    def _rate(self, state):
        """dt / tau in the dtype of the state."""
        return jnp.asarray(self.dt / self.tau, state.dtype)

    def initial_state(self) -> Float[Array, " h"]:
        return jnp.zeros(self.weight_ih.shape[0], self.weight_ih.dtype)

    def time_step(self) -> float | Array:
        return self.dt
