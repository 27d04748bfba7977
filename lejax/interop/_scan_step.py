r"""Steps in the order of `jax.lax.scan` as cells."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import PyTree

from .._core.cell import RecurrentCell, name_of
from .._core.check_annotations import checked
from .._core.check_cell import StepError, describe, signature_problem


class ScanStepCell(RecurrentCell):
    r"""A step of `jax.lax.scan` as a cell, made by `from_scan_step`.

    $$(h', y) = F(p, h, u)$$

    The output y is dropped; a layer above in a `Stack` receives h'.

    **Fields:**

    - `step`: F.
    - `parameters`: p, any pytree of arrays, or `None`.
    - `start`: the carry from which a run starts, or `None`.
    """

    step: Callable[..., Any]
    parameters: PyTree
    start: PyTree

    def __call__(self, input: PyTree, state: PyTree) -> PyTree:
        given = () if self.parameters is None else (self.parameters,)
        name = name_of(getattr(self.step, "func", self.step))
        return part_of(self.step(*given, state, input), 0, name)

    def initial_state(self) -> PyTree:
        """`start`."""
        if self.start is None:
            raise TypeError(
                "the carry from which a run starts is unknown: pass it, from_scan_step(..., initial_state=carry)."
            )
        return self.start


@checked
def from_scan_step(
    step: Callable[..., Any], parameters: PyTree = None, *, initial_state: PyTree = None
) -> ScanStepCell:
    r"""A step in the order of `jax.lax.scan`, `(carry, x) -> (carry, y)`, as a cell.

    $$(h', y) = F(h, u) \qquad \text{or} \qquad (h', y) = F(p, h, u)$$

    The carry h is the state, x is the input u, and y is dropped.

    **Arguments:**

    - `step`: F, called as `step(carry, x)`, or as `step(parameters, carry, x)` if there are parameters.
    - `parameters`: p, a pytree of arrays. They are leaves of the cell: `equinox.filter_grad` with respect to the cell
        returns a cell whose `parameters` are the gradient in the same structure.
    - `initial_state`: the carry from which a run starts; it is what `cell.initial_state()` returns.

    **Returns:** a `ScanStepCell`.

    **Raises:**

    - `TypeError`: if `step` cannot be called with so many arguments; at a step, if it does not return a pair.

    **Numerics:** the computation is that of `step`. A plain function without parameters is compiled anew at each call
    of lejax, so that it may read anything. With parameters it is compiled once for all their values, and must read
    nothing else that changes. An `equinox.Module` and a `jax.tree_util.Partial` show their arrays by themselves.

    !!! example

        >>> import jax, jax.numpy as jnp, lejax
        >>> def step(params, carry, x):
        ...     carry = jnp.tanh(params["w"] @ carry + x)
        ...     return carry, carry.sum()
        >>> params = {"w": jax.random.normal(jax.random.key(0), (3, 3))}
        >>> cell = lejax.interop.from_scan_step(step, params, initial_state=jnp.zeros(3))
        >>> lejax.lyapunov_spectrum(cell, cell.initial_state(), jnp.ones((50, 3))).exponents.shape
        (3,)
    """
    count = 2 if parameters is None else 3
    problem = signature_problem(step, count)
    if problem is not None:
        expected = "step(carry, x)" if parameters is None else "step(parameters, carry, x)"
        raise TypeError(f"{name_of(step)} cannot be called as {expected}: {problem}.")
    # Functions are leaves, for which lejax compiles at each call; those in a Partial are not.
    function: Callable[..., Any] = step
    if parameters is not None and not isinstance(step, eqx.Module):
        function = jtu.Partial(step)
    return ScanStepCell(function, parameters, initial_state)


def part_of(out: Any, index: int, name: str) -> PyTree:
    """The carry, at this place in the pair that a step has returned."""
    order = ("(carry, y)", "(y, carry)")[index]
    if not isinstance(out, tuple | list) or len(out) != 2:
        raise StepError(f"{name} must return {order}, but returned {describe(out)}.")
    return out[index]
