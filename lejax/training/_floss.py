"""Gradient flossing: move Lyapunov exponents to a target by gradient descent, before or between training."""

from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._core.cell import is_traced, name_of
from .._core.check_annotations import checked
from .._core.check_cell import check_state
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
    r"""Descend the flossing penalty: a network whose leading exponents are near their target.

    $$\theta \leftarrow \theta - \mathrm{optimizer}\left(\nabla_\theta\,
      \frac{1}{k} \sum_{i \le k} (\lambda_i(\theta, u_n) - \lambda^*_i)^2\right),
      \qquad n = 1, \dots, N$$

    **Arguments:**

    - `cell`: an `eqx.Module`; all its floating-point arrays are trained. To leave some as they are, give them
        `optax.set_to_zero()` in an `optax.multi_transform`; `optax.masked` alone would add their raw gradients.
    - `state`: where each run starts.
    - `inputs`: N sequences, one an update: a pytree of arrays (N, T, ...). `None` for an autonomous cell.
    - `optimizer`: from optax, e.g. `optax.adam(1e-3)`.
    - `num_updates`: N; required when `inputs` is `None`, else all sequences by default.
    - `num_exponents`, `target`, `num_steps`, `transient`, `adjoint`: as for `flossing_penalty`; `num_steps` are the counted
        steps of one run.
    - `throw`: whether a call outside `jit` and `vmap` raises when a penalty is not finite.

    **Returns:** the new cell, and the penalty before each update, (N,).

    **Numerics:** one compiled scan over updates. The optimizer starts anew at each call: nothing of its memory goes
    from one flossing to the next, nor to the training between them. Leave out a short transient that lets the frame align, and count
    few steps: what has to be reached is the horizon of the task. Networks in parallel by `eqx.filter_vmap`.

    **Raises:** `RuntimeError` for a penalty that is not finite: a run diverged.

    !!! example

        >>> import jax, lejax, optax
        >>> cell = lejax.cells.RNNCell(1, 16, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (40, 30, 1))  # 40 updates on 30 steps each
        >>> flossed, penalties = lejax.training.floss(
        ...     cell, cell.initial_state(), inputs, optimizer=optax.adam(1e-2), num_exponents=4, transient=5
        ... )
        >>> bool(penalties[-1] < penalties[0] / 2)
        True

    Engelken, Advances in Neural Information Processing Systems 36 (2023).
    """
    state = check_state(state)
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) > 1 or () in lengths:
        raise ValueError(
            f"inputs must share their first axis, one sequence an update, got {sorted(lengths)}."
        )
    available = lengths.pop()[0] if lengths else None
    num_updates = available if num_updates is None else num_updates
    if num_updates is None:
        raise ValueError("num_updates is required when inputs is None.")
    num_updates = check_count("num_updates", num_updates, 1)
    if available is not None and num_updates > available:
        raise ValueError(f"num_updates is {num_updates}, but inputs hold {available} sequences.")
    if not any(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(cell)):
        raise ValueError(f"{name_of(cell)} holds no floating-point array that could be trained.")
    options = tuple(
        None if value is None else check_count(name, value, least)
        for name, value, least in (
            ("num_exponents", num_exponents, 1),
            ("num_steps", num_steps, 1),
            ("transient", transient, 0),
        )
    )
    inputs = jax.tree.map(lambda x: jnp.asarray(x)[:num_updates], inputs)
    cell, penalties = _floss(cell, state, inputs, optimizer, num_updates, target, adjoint, options)
    if throw and not is_traced(penalties):
        bad = ~jnp.isfinite(penalties)
        if bool(jnp.any(bad)):
            raise RuntimeError(
                f"the penalty is {penalties[jnp.argmax(bad)]} at update {int(jnp.argmax(bad))}: the run left the "
                "floats. Pass throw=False to receive the result all the same."
            )
    return cell, penalties


@compiled
def _floss(cell, state, inputs, optimizer, num_updates, target, adjoint, options):
    num_exponents, num_steps, transient = options
    trained, rest = eqx.partition(cell, eqx.is_inexact_array)

    def penalty(trained, inputs):
        return flossing_penalty(
            eqx.combine(trained, rest),
            state,
            inputs,
            num_exponents=num_exponents,
            target=target,
            num_steps=num_steps,
            transient=transient,
            adjoint=adjoint,
        )

    def update(carry, inputs):
        trained, memory = carry
        value, gradient = jax.value_and_grad(penalty)(trained, inputs)
        change, memory = optimizer.update(gradient, memory, trained)
        return (optax.apply_updates(trained, change), memory), value

    start = (trained, optimizer.init(trained))
    (trained, _), penalties = jax.lax.scan(update, start, inputs, length=num_updates)
    return eqx.combine(trained, rest), penalties
