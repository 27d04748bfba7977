"""The cell protocol `cell(input, state) -> state` on pytrees of real floating-point arrays, and states as flat vectors.

A cell needs no base class. `RecurrentCell`, `TimedCell`, `TangentCell` and `VectorField` are optional protocols: a
class offers what they ask for by inheriting from them.
"""

import abc
import inspect
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
    """A cell that knows the duration dt of its step: exponents of its runs are in nats per unit of time, not per step.

    A class that inherits from it has a method `time_step()`, which returns dt, a positive number.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Decay(lejax.TimedCell):
        ...     dt: float
        ...
        ...     def __call__(self, input, state):
        ...         return jnp.exp(-self.dt) * state
        ...
        ...     def time_step(self):
        ...         return self.dt
        >>> lejax.lyapunov_spectrum(Decay(0.1), jnp.ones(1), num_steps=100).exponents.round(3)
        Array([-1.], dtype=...)
    """

    @abc.abstractmethod
    def time_step(self) -> float | Array:
        """The duration of one step."""
        raise NotImplementedError


class RecurrentCell(eqx.Module):
    """A layer of a network: a cell that knows its initial state, and its output to the next layer or a readout.

    A class that inherits from it has a method `initial_state()`, usually zeros. `output(state)` is the state unless the
    class overrides it.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Integrator(lejax.RecurrentCell):
        ...     weight: jnp.ndarray
        ...
        ...     def __call__(self, input, state):
        ...         return 0.9 * state + self.weight @ input
        ...
        ...     def initial_state(self):
        ...         return jnp.zeros(self.weight.shape[0])
        >>> layers = lejax.cells.Stack([Integrator(jnp.ones((2, 3))), Integrator(jnp.ones((1, 2)))])
        >>> layers(jnp.ones(3), layers.initial_state())
        (Array([3., 3.], dtype=...), Array([6.], dtype=...))
    """

    @abc.abstractmethod
    def initial_state(self) -> PyTree:
        """The state from which a run may start."""
        raise NotImplementedError

    def output(self, state: PyTree) -> PyTree:
        """What the next layer or a readout receives."""
        return state


class TangentCell(eqx.Module):
    r"""A cell that computes its own tangent map $Z \mapsto J(u, h)\, Z$, where that is cheaper than `jax.linearize`.

    A class that inherits from it has a method `push_forward(input, state, tangent)`: `tangent` is the pytree of the
    state, each leaf with a last axis of k columns, and so is the second value it returns. lejax takes the new state
    from `__call__` and trusts the tangent. To check it, compare `lejax.jacobian(cell, state, input)` with
    `lejax.jacobian(lambda input, state: cell(input, state), state, input)`. A concrete `TangentCell` is final: a
    subclass could replace the step and keep the tangent map of the old one. To build on a cell, write a cell that
    holds it as a field.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Shear(lejax.TangentCell):
        ...     matrix: jnp.ndarray
        ...
        ...     def __call__(self, input, state):
        ...         return self.matrix @ state
        ...
        ...     def push_forward(self, input, state, tangent):
        ...         return self(input, state), self.matrix @ tangent
        >>> lejax.jacobian(Shear(jnp.array([[1.0, 2.0], [0.0, 1.0]])), jnp.ones(2))
        Array([[1., 2.],
               [0., 1.]], dtype=...)
    """

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        check_bases(cls, TangentCell, "push_forward")

    @abc.abstractmethod
    def push_forward(self, input: PyTree, state: PyTree, tangent: PyTree) -> tuple[PyTree, PyTree]:
        """The new state, and J times `tangent`: the pytree of the state, each leaf with a last axis of k columns."""
        raise NotImplementedError


class VectorField(eqx.Module):
    r"""The right-hand side f of $\dot x = f(u, x)$. It is no cell; `lejax.systems.Flow` makes one of it.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> class Oscillator(lejax.VectorField):
        ...     damping: float
        ...
        ...     def __call__(self, input, state):
        ...         position, velocity = state
        ...         return jnp.stack([velocity, -position - self.damping * velocity])
        >>> flow = lejax.systems.Flow(Oscillator(0.5), dt=0.01)
        >>> lejax.lyapunov_spectrum(flow, jnp.ones(2), num_steps=500).exponents.sum().round(3)
        Array(-0.5, dtype=...)
    """

    @abc.abstractmethod
    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        """The velocity at a state."""
        raise NotImplementedError


def check_bases(kind: type, protocol: type, method: str) -> None:
    """Refuse a subclass of a concrete class: it could replace the step and keep a `method` of the old step."""
    for base in kind.__mro__[1:]:
        if issubclass(base, protocol) and not _is_abstract(base):
            raise TypeError(
                f"{kind.__name__} inherits from {base.__name__}, which is final, because its {method} belongs to its "
                f"own step; make {kind.__name__} a cell with a field of type {base.__name__}."
            )


def _is_abstract(kind: type) -> bool:
    """Whether a class leaves methods or fields open (Equinox lists open fields apart)."""
    return inspect.isabstract(kind) or bool(getattr(kind, "__abstractvars__", ()))


def time_step(cell: Cell) -> float | Array:
    """The duration of one step: that of a `TimedCell`, else 1."""
    return cell.time_step() if isinstance(cell, TimedCell) else 1.0


def is_traced(tree: PyTree) -> bool:
    """Whether any leaf has no value yet: under `jit`, `vmap` or `grad`."""
    return any(isinstance(leaf, Tracer) for leaf in jtu.tree_leaves(tree))


def name_of(cell: Any) -> str:
    """The name of a function or of the class of an object."""
    return getattr(cell, "__name__", type(cell).__name__)


def packages_of(value: object) -> set[str]:
    """The packages that the classes of an object come from."""
    return {kind.__module__.partition(".")[0] for kind in type(value).__mro__}


def importer_of(value: Any) -> str | None:
    """The call of `lejax.interop` that makes a cell of a module of another framework, or of one that a cell holds."""
    calls = {
        "flax": "from_flax(module)",
        "haiku": "from_haiku(transformed, parameters)",
        "keras": "from_keras(layer)",
        "torch": "from_torch(module.state_dict())",
    }
    found = packages_of(value)
    call = next((call for package, call in calls.items() if package in found), None)
    if call is not None or not type(value).__module__.startswith("lejax.cells."):
        return call
    parts = [
        x for part in vars(value).values() for x in (part if isinstance(part, tuple) else [part])
    ]
    return next(filter(None, map(importer_of, filter(callable, parts))), None)


def output(cell: Cell, state: PyTree) -> PyTree:
    """The output of a cell: `cell.output(state)`, h of the (h, c) of an Equinox LSTM, else the state."""
    if isinstance(cell, RecurrentCell):
        return cell.output(state)
    return state[0] if isinstance(cell, eqx.nn.LSTMCell) else state


def initial_state(cell: Cell) -> PyTree:
    """The initial state of a `RecurrentCell`, and zeros for a cell of Equinox."""
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
    """The input of the first step, or its shape, which is enough for checks."""
    return jtu.tree_map(lambda x: x[0], inputs)


def ravel(
    state: PyTree,
) -> tuple[Float[Array, " d"], Callable[[Float[Array, " d"]], PyTree]]:
    """The state as one vector (d,), and the function that restores the pytree."""
    return ravel_pytree(state)


def size_of(state: PyTree) -> int:
    """The number d of components of a state."""
    return sum(leaf.size for leaf in jtu.tree_leaves(state))


def dtype_of(state: PyTree) -> jnp.dtype:
    """The dtype of a state as one vector."""
    return jnp.result_type(*(leaf.dtype for leaf in jtu.tree_leaves(state)))


def vary_with(state: PyTree, others: PyTree) -> PyTree:
    """The same state, varying over a device mesh wherever any array in `others` does.

    Under `shard_map` the carry of a loop must vary from the start as it will after one step.
    """

    def zero_of(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return jnp.real(jnp.zeros_like(leaf, shape=()))

    zeros = [zero_of(leaf) for leaf in jtu.tree_leaves((others, state)) if eqx.is_array(leaf)]
    return jtu.tree_map(lambda x: x + sum(zero.astype(x.dtype) for zero in zeros), state)


T = TypeVar("T")


def without_gradient(tree: T) -> T:
    """The same tree, constant under differentiation."""
    return jtu.tree_map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)
