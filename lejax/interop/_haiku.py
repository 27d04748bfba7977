r"""Transformed recurrent cores of Haiku as cells."""

import inspect
from typing import Any

import jax.tree_util as jtu
from jaxtyping import PyTree

from .._core.cell import RecurrentCell
from .._core.check_annotations import checked
from .._core.check_cell import StepError, describe, signature_problem
from ._scan_step import part_of


class HaikuCell(RecurrentCell):
    r"""A transformed core of Haiku with its parameters as a cell, made by `from_haiku`.

    $$(y, h') = F(p, u, h)$$

    **Fields:**

    - `apply`: F, a `jax.tree_util.Partial` of the `apply` of the transformed function.
    - `parameters`: p, as its `init` returns them.
    - `start`: the state from which a run starts, or `None`.
    """

    apply: jtu.Partial
    parameters: PyTree
    start: PyTree

    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        try:
            out = self.apply(self.parameters, input, state)
        except ValueError as error:
            if "RNG" not in str(error):
                raise
            raise StepError(
                "the transformed function draws random numbers, and a step has no key: leave dropout out of it."
            ) from error
        return part_of(out, 1, "the transformed function")

    def initial_state(self) -> PyTree:
        """`start`."""
        if self.start is None:
            raise TypeError(
                "a transformed function does not say its initial state: pass it, from_haiku(..., "
                "initial_state=state)."
            )
        return self.start

    def output(self, state):
        return getattr(state, "hidden", state)


@checked
def from_haiku(transformed: Any, parameters: PyTree, *, initial_state: PyTree = None) -> HaikuCell:
    r"""A recurrent core of Haiku as a cell.

    $$(y, h') = F(p, u, h)$$

    The output y is dropped: what an LSTM passes on is the field `hidden` of its state, and what other cores pass on is
    the state.

    **Arguments:**

    - `transformed`: what `haiku.transform` returns for `lambda input, state: core(input, state)`, where `core` is a
        `haiku.RNNCore` such as `haiku.LSTM(8)`, or a function of yours with the same order; also after
        `haiku.without_apply_rng`.
    - `parameters`: p, as its `init` or your training returned them. More parameters than the core reads do no harm.
    - `initial_state`: the state from which a run starts, as `core.initial_state(None)` returns it under a transform;
        it is what `cell.initial_state()` returns.

    **Returns:** a `HaikuCell`. Its arrays are leaves, and derivatives with respect to it have the structure of
    `parameters`.

    **Raises:**

    - `TypeError`: if `transformed` is not what `haiku.transform` returns, or has states of its own
        (`haiku.transform_with_state`); at a step, if it does not return a pair or draws random numbers.

    **Numerics:** the computation is Haiku's. It is compiled once for all parameters and must read nothing else that
    changes.

    !!! example

        >>> import haiku as hk, jax, jax.numpy as jnp, lejax
        >>> core = hk.transform(lambda input, state: hk.GRU(8)(input, state))
        >>> params = core.init(jax.random.key(0), jnp.ones(3), jnp.zeros(8))
        >>> cell = lejax.interop.from_haiku(core, params, initial_state=jnp.zeros(8))
        >>> lejax.lyapunov_spectrum(cell, cell.initial_state(), jnp.ones((100, 3))).exponents.shape
        (8,)
    """
    init, apply = getattr(transformed, "init", None), getattr(transformed, "apply", None)
    if not isinstance(transformed, tuple) or not callable(init) or not callable(apply):
        raise TypeError(
            "transformed must be what haiku.transform returns for lambda input, state: core(input, state), got "
            f"{describe(transformed)}."
        )
    names = list(inspect.signature(apply).parameters)
    if names[1:2] == ["state"] and "WithState" in type(transformed).__name__:
        raise TypeError(
            "transformed has states of its own (haiku.transform_with_state), which are not in the carry: make the "
            "step with haiku.transform."
        )
    takes_key = names[1:2] == ["rng"]
    # Haiku drops an argument `state` from the signature of `apply`.
    problem = signature_problem(getattr(apply, "_original_fn", apply))
    if problem is not None:
        raise TypeError(
            f"the transformed function has no carry: it must take an input and a state, {problem}."
        )
    function = jtu.Partial(_without_key, jtu.Partial(apply)) if takes_key else jtu.Partial(apply)
    return HaikuCell(function, parameters, initial_state)


def _without_key(apply: Any, parameters: PyTree, input: PyTree, state: PyTree) -> Any:
    return apply(parameters, None, input, state)
