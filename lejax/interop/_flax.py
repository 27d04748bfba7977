r"""Modules of Flax, of `nnx` and of `linen`, as cells."""

import importlib.metadata
import inspect
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._core.cell import RecurrentCell, name_of, packages_of
from .._core.check_annotations import checked
from .._core.check_cell import StepError, signature_problem
from ._live_arrays import LiveArrays, check_unchanged
from ._scan_step import part_of


class FlaxCell(RecurrentCell):
    r"""A module of `flax.nnx` as a cell, made by `from_flax`.

    $$(h', y) = F(h, u)$$

    The carry h is the state. The cell looks at the module: it has the module's present parameters at each call.

    **Fields:**

    - `watched`: the module's present arrays and its definition.
    - `hidden`: the place in the carry of what the next layer receives, or `None` for the complete carry.
    """

    watched: LiveArrays
    hidden: int | None = eqx.field(static=True)

    @property
    def parameters(self) -> PyTree:
        """The `nnx.State` of the parameters, of type `nnx.Param`."""
        return self.watched.read()[0][0]

    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        from flax import nnx

        arrays, module = self._merge()
        before = _by_path(arrays)
        state = part_of(module(state, input), 0, name_of(module))
        after = _by_path(nnx.split(module, nnx.Param, ...)[1:])
        check_unchanged(
            name_of(module), list(before.values()), [after.get(p) for p in before], list(before)
        )
        return state

    def initial_state(self) -> PyTree:
        """The module's `initialize_carry`, with the seed 0 if it draws."""
        from flax import nnx

        _, module = self._merge()
        return _initial_carry(module, getattr(module, "in_features", 1), nnx.Rngs(0))

    def output(self, state):
        return state if self.hidden is None else state[self.hidden]

    def _merge(self) -> tuple[PyTree, Any]:
        """The arrays, and a module that holds them."""
        from flax import nnx

        arrays, definition = self.watched.read()
        # The copy has variables of its own: a step that changes them leaves the watched module alone.
        return arrays, nnx.merge(definition, *jax.tree.map(lambda x: x, arrays))


class LinenCell(RecurrentCell):
    r"""A module of `flax.linen` with its variables as a cell, made by `from_flax`.

    $$(h', y) = F(p, h, u)$$

    **Fields:**

    - `variables`: p, as `module.init` returns them, `{"params": ...}`.
    - `module`: F.
    - `hidden`: the place in the carry of what the next layer receives, or `None` for the complete carry.
    """

    variables: PyTree
    module: Any = eqx.field(static=True)
    hidden: int | None = eqx.field(static=True)

    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        import flax.errors

        try:
            out = self.module.apply(self.variables, state, input)
        except flax.errors.InvalidRngError as error:
            raise StepError(
                f"{name_of(self.module)} draws random numbers, and a step has no key: make the module deterministic."
            ) from error
        except flax.errors.ModifyScopeVariableError as error:
            raise StepError(
                f"a step of {name_of(self.module)} changes variables that its carry does not hold, so that it is no "
                "map of the carry: switch off what gathers statistics, such as batch normalization."
            ) from error
        return part_of(out, 0, name_of(self.module))

    def initial_state(self) -> PyTree:
        """The module's `initialize_carry`, with the seed 0 if it draws."""
        return _initial_carry(self.module, 1, jax.random.key(0))

    def output(self, state):
        return state if self.hidden is None else state[self.hidden]


@checked
def from_flax(module: Any, variables: PyTree = None) -> FlaxCell | LinenCell:
    r"""A recurrent module of Flax as a cell: `nnx.GRUCell`, `nnx.LSTMCell`, `linen.GRUCell`, or your own.

    $$(h', y) = F(h, u)$$

    The carry h is the state, and y is dropped: what an LSTM passes on is h of its carry (c, h), and what other
    modules pass on is the carry.

    **Arguments:**

    - `module`: an `nnx.Module` or a `linen.Module` that is called as `module(carry, x)` and returns `(carry, y)`.
    - `variables`: of a `linen.Module`, as its `init` returns them. An `nnx.Module` has its own.

    **Returns:** a `FlaxCell` or a `LinenCell`. Its arrays are leaves, and derivatives with respect to it come back in
    Flax's structure: `gradient.parameters` of a `FlaxCell` is the `nnx.State` that `nnx.Optimizer.update` takes,
    `gradient.variables` of a `LinenCell` has the structure of `variables`. `initial_state()` is the module's
    `initialize_carry`.

    **Raises:**

    - `RuntimeError`: if Flax is older than 0.12.
    - `TypeError`: if `module` is no module of Flax, cannot be called with a carry and an input, or runs over a whole
        sequence (`nnx.RNN`, `linen.RNN`); if `variables` are missing, or given for an `nnx.Module`; at a step, if the
        module does not return a pair, draws random numbers, or changes arrays that are not in the carry.
    - `ValueError`: if the module is bidirectional.

    **Numerics:** the computation is Flax's. A `FlaxCell` looks at the module and does not copy it: after training in
    place the next call has the new parameters, without a new compilation. For the network of this moment make the
    cell of a copy, `from_flax(nnx.clone(module))`. What `jax.tree.map` or a transformation makes of the cell is a
    copy. The module must read nothing that changes but its own attributes.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> from flax import nnx
        >>> module = nnx.GRUCell(3, 8, rngs=nnx.Rngs(0))
        >>> cell = lejax.interop.from_flax(module)
        >>> inputs = jax.random.normal(jax.random.key(1), (100, 3), jnp.float32)
        >>> lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs).exponents.shape
        (8,)
    """
    if inspect.isclass(module) or "flax" not in packages_of(module):
        hint = f"; pass an instance, {module.__name__}(...)" if inspect.isclass(module) else ""
        raise TypeError(
            f"module must be a module of flax.nnx or flax.linen, got {name_of(module)}{hint}."
        )
    _check_version()
    from flax import linen, nnx

    name = name_of(module)
    if isinstance(module, nnx.Bidirectional | linen.Bidirectional):
        raise ValueError(
            f"{name} reads its input from both ends and is therefore not a map from one state to the next."
        )
    if isinstance(module, nnx.RNN | linen.RNN):
        raise TypeError(f"{name} runs over a sequence, a cell makes one step: pass its cell.")
    if not isinstance(module, nnx.Module | linen.Module):
        raise TypeError(f"module must be an nnx.Module or a linen.Module, got {name}.")
    problem = signature_problem(module)
    if problem is not None:
        raise TypeError(f"{name} has no carry: it cannot be called as module(carry, x), {problem}.")
    if isinstance(module, linen.Module):
        if variables is None:
            raise TypeError(
                f"variables of {name} are missing: pass what its init returned, from_flax(module, variables)."
            )
        lstm = linen.LSTMCell | linen.OptimizedLSTMCell | linen.ConvLSTMCell
        return LinenCell(variables, module, 1 if isinstance(module, lstm) else None)
    if variables is not None:
        raise TypeError(f"{name} is an nnx.Module, which has its own variables: pass it alone.")

    def read():
        definition, *arrays = nnx.split(module, nnx.Param, ...)
        return tuple(arrays), definition

    lstm = nnx.LSTMCell | nnx.OptimizedLSTMCell
    return FlaxCell(LiveArrays(read), 1 if isinstance(module, lstm) else None)


def _check_version() -> None:
    version = importlib.metadata.version("flax")
    major, minor = map(int, version.split(".")[:2])
    if (major, minor) < (0, 12):
        raise RuntimeError(
            f"from_flax needs Flax 0.12 or later, but {version} is installed: pip install -U flax."
        )


def _by_path(arrays: PyTree) -> dict[str, Any]:
    """The leaves by their paths in the module."""
    leaves = jax.tree.leaves_with_path(arrays)
    return {jax.tree_util.keystr(path[1:]): leaf for path, leaf in leaves}


def _initial_carry(module: Any, input_size: int, randomness: Any) -> PyTree:
    initialize = getattr(module, "initialize_carry", None)
    if initialize is None:
        raise TypeError(
            f"{name_of(module)} has no method initialize_carry(input_shape, rngs) that says where a run starts: pass "
            "a state of your own."
        )
    # linen and nnx take shape and randomness in opposite orders.
    if isinstance(randomness, jax.Array):
        return initialize(randomness, (input_size,))
    return initialize((input_size,), randomness)
