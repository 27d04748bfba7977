"""Gradient flossing: gradient descent on Lyapunov exponents, before training or between training steps."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._core.cell import is_traced, name_of
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_types import NUMBERS, check_array
from .._core.check_values import check_count
from .._core.closures import compiled
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from ._penalty import flossing_penalty


C = TypeVar("C")


@checked
def floss(
    cell: C,
    state: PyTree,
    inputs: PyTree = None,
    *,
    optimizer: optax.GradientTransformation,
    num_updates: int | None = None,
    num_exponents: int | None = None,
    target: float | Float[Array, ""] | Float[Array, " k"] = 0.0,
    num_steps: int | None = None,
    transient: int = 0,
    adjoint: Adjoint = CheckpointedAdjoint(),
    throw: bool = True,
) -> tuple[C, Float[Array, " n"]]:
    r"""Move the leading Lyapunov exponents of a network to a target by gradient descent: gradient flossing.

    $$\theta \leftarrow \theta - \mathrm{optimizer}\left(\nabla_\theta\,
      \frac{1}{k} \sum_{i \le k} (\lambda_i(\theta, u_n) - \lambda^*_i)^2\right),
      \qquad n = 1, \dots, N$$

    **Arguments:**

    - `cell`: an `eqx.Module`, all of whose floating-point arrays are trained. To keep some of them fixed, give them
        `optax.set_to_zero()` in an `optax.multi_transform`; `optax.masked` alone would add their raw gradients.
    - `state`: the initial state of each run.
    - `inputs`: N sequences, one for each update: a pytree of arrays (N, T, ...). `None` for an autonomous cell.
    - `optimizer`: a transformation from optax, e.g. `optax.adam(1e-3)`.
    - `num_updates`: N, e.g. from a `FlossingSchedule`. Default: the number of sequences; required if `inputs` is
        `None`.
    - `num_exponents`, `target`, `transient`, `adjoint`: as for `flossing_penalty`.
    - `num_steps`: as for `flossing_penalty`, the counted steps of one run.
    - `throw`: whether to raise, outside `jit` and `vmap`, if a penalty is not finite. Default: `True`.

    **Returns:** the trained cell, and the penalty before each update, (N,).

    **Raises:**

    - `ValueError`: if sequences are missing or differ in number, or the cell has no floating-point array.
    - `RuntimeError`: if a penalty is not finite, because a run diverged.

    **Numerics:** one compiled scan over the updates. Each call initializes the optimizer again, so no optimizer state
    passes from one flossing to the next, or to the training between them. Use a short transient, in which the frame
    aligns, and about as many counted steps as the delays of the task. `eqx.filter_vmap` flosses networks in parallel.

    !!! example

        >>> import jax, lejax, optax
        >>> cell = lejax.cells.RNNCell(1, 16, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (40, 30, 1))  # 40 updates, each on 30 steps
        >>> flossed, penalties = lejax.training.floss(
        ...     cell, cell.initial_state(), inputs, optimizer=optax.adam(1e-2), num_exponents=4, transient=5
        ... )
        >>> bool(penalties[-1] < penalties[0] / 2)
        True

    Engelken, Advances in Neural Information Processing Systems 36 (2023).
    """
    state = check_state(state)
    inputs = jax.tree.map(lambda x: jnp.asarray(check_array("inputs", x, NUMBERS)), inputs)
    num_updates = _count_updates(inputs, num_updates)
    if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(cell)):
        raise ValueError(f"{name_of(cell)} holds no floating-point array that could be trained.")
    counts = {
        name: None if value is None else check_count(name, value, least)
        for name, value, least in (
            ("num_exponents", num_exponents, 1),
            ("num_steps", num_steps, 1),
            ("transient", transient, 0),
        )
    }
    inputs = jax.tree.map(lambda x: x[:num_updates], inputs)
    options = counts | {"target": target, "adjoint": adjoint}
    cell, penalties = _floss(cell, state, inputs, optimizer, num_updates, options)
    if throw and not is_traced(penalties):
        bad = ~jnp.isfinite(penalties)
        if bool(jnp.any(bad)):
            raise RuntimeError(
                f"the penalty is {penalties[jnp.argmax(bad)]} at update {int(jnp.argmax(bad))}: the run left the "
                "floats. Pass throw=False to receive the result all the same."
            )
    return cell, penalties


def _count_updates(inputs: PyTree, num_updates: int | None) -> int:
    """The number of updates, one sequence each."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) > 1 or () in lengths:
        raise ValueError(
            f"inputs must share their first axis, one sequence an update, got {sorted(lengths)}."
        )
    available = lengths.pop()[0] if lengths else None
    if available == 0:
        raise ValueError("inputs must hold at least one sequence, got none.")
    num_updates = available if num_updates is None else num_updates
    if num_updates is None:
        raise ValueError("num_updates is required when inputs is None.")
    num_updates = check_count("num_updates", num_updates, 1)
    if available is not None and num_updates > available:
        raise ValueError(f"num_updates is {num_updates}, but inputs hold {available} sequences.")
    return num_updates


@compiled
def _floss(cell, state, inputs, optimizer, num_updates, options):
    trained, rest = eqx.partition(cell, eqx.is_inexact_array)

    def penalty(trained, inputs):
        return flossing_penalty(eqx.combine(trained, rest), state, inputs, **options)

    def update(carry, inputs):
        trained, memory = carry
        value, gradient = jax.value_and_grad(penalty)(trained, inputs)
        change, memory = optimizer.update(gradient, memory, trained)
        return (optax.apply_updates(trained, change), memory), value

    start = (trained, optimizer.init(trained))
    (trained, _), penalties = jax.lax.scan(update, start, inputs, length=num_updates)
    return eqx.combine(trained, rest), penalties
