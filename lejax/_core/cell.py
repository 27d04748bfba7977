"""The cell protocol: `cell(input, state) -> state` on pytrees of real floating-point arrays, and states as flat vectors.

A cell needs no base class; `TimedCell`, `RecurrentCell` and `TangentCell` are optional offers that a cell makes by inheriting
from them.
"""

import abc
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree


Cell = Callable[[Any, Any], Any]


class TimedCell(eqx.Module):
    """A cell that knows how long its step lasts: its exponents come in nats per unit time."""

    @abc.abstractmethod
    def time_step(self) -> float | Array:
        raise NotImplementedError


class RecurrentCell(eqx.Module):
    """A cell of a network: it knows its zero state, and what it shows to a layer above or a readout."""

    @abc.abstractmethod
    def initial_state(self) -> PyTree:
        raise NotImplementedError

    def output(self, state: PyTree) -> PyTree:
        return state


class TangentCell(eqx.Module):
    """A cell that computes its own tangent map, where that costs less than what `jax.linearize` makes of it."""

    @abc.abstractmethod
    def push_forward(self, input: PyTree, state: PyTree, tangent: PyTree) -> tuple[PyTree, PyTree]:
        """The new state and the pushed tangent: the state's pytree, each leaf with a last axis of k columns."""
        raise NotImplementedError


class VectorField(eqx.Module):
    """The right-hand side of `dx/dt = field(input, x)`. Not a cell: `Flow` makes one of it."""

    @abc.abstractmethod
    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        raise NotImplementedError


def time_step(cell: Cell) -> float | Array:
    """The duration of one step: what a `TimedCell` says, else 1."""
    return cell.time_step() if isinstance(cell, TimedCell) else 1.0


def is_traced(tree: PyTree) -> bool:
    """Whether any leaf has no value yet: under `jit`, `vmap` or `grad`."""
    return any(isinstance(leaf, Tracer) for leaf in jtu.tree_leaves(tree))


def name_of(cell: Any) -> str:
    return getattr(cell, "__name__", type(cell).__name__)


def output(cell: Cell, state: PyTree) -> PyTree:
    """What a cell shows of its state: `cell.output(state)`, h of an Equinox LSTM's (h, c), else all of it."""
    if isinstance(cell, RecurrentCell):
        return cell.output(state)
    return state[0] if isinstance(cell, eqx.nn.LSTMCell) else state


def initial_state(cell: Cell) -> PyTree:
    """Zeros for a cell that says how many, or for a cell of Equinox."""
    if isinstance(cell, RecurrentCell):
        return cell.initial_state()
    if isinstance(cell, eqx.nn.GRUCell | eqx.nn.LSTMCell):
        zeros = jnp.zeros(cell.hidden_size, cell.weight_hh.dtype)
        return (zeros, zeros) if isinstance(cell, eqx.nn.LSTMCell) else zeros
    raise TypeError(
        f"{name_of(cell)} does not say its initial state: let it inherit from lejax.RecurrentCell and have a method "
        "initial_state()."
    )


def first_input(inputs: PyTree) -> PyTree:
    """The input of the first step, or its shape: enough for checks."""
    return jtu.tree_map(lambda x: x[0], inputs)


def ravel(
    state: PyTree,
) -> tuple[Float[Array, " d"], Callable[[Float[Array, " d"]], PyTree]]:
    """The state as one vector (d,), and the way back."""
    return ravel_pytree(state)


def size_of(state: PyTree) -> int:
    """How many numbers a state holds."""
    return sum(leaf.size for leaf in jtu.tree_leaves(state))


def dtype_of(state: PyTree) -> jnp.dtype:
    """The dtype of a state as one vector."""
    return jnp.result_type(*(leaf.dtype for leaf in jtu.tree_leaves(state)))


def vary_with(state: PyTree, others: PyTree) -> PyTree:
    """The same state, varying over a device mesh wherever any array in `others` does.

    Under `shard_map` the carry of a loop must vary from the start as it will after one step.
    """

    def nothing(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return jnp.real(jnp.zeros_like(leaf, shape=()))

    zeros = [nothing(leaf) for leaf in jtu.tree_leaves((others, state)) if eqx.is_array(leaf)]
    return jtu.tree_map(lambda x: x + sum(zero.astype(x.dtype) for zero in zeros), state)


T = TypeVar("T")


def without_gradient(tree: T) -> T:
    """The same, as a constant to every derivative."""
    return jtu.tree_map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)
