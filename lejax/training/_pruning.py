"""Pruning that keeps the Lyapunov exponents: the weights or units go to which the exponents are least sensitive."""

import functools as ft
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core.cell import Cell, name_of, vary_with
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_values import check_count, check_fraction
from .._core.closures import compiled
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from .._spectrum.lyapunov_spectrum import lyapunov_spectrum
from .._spectrum.report import are_resolved
from ..cells import GRUCell, LSTMCell, RNNCell
from ._units import take_units


class WeightPruning(eqx.Module):
    """A pruned network.

    **Fields:**

    - `cell`: the cell, with zeros in place of the weights that are removed.
    - `kept`: the cell with booleans in place of its floating-point numbers, `False` for what is removed. Multiply the
        updates of further training by it, `jax.tree.map(jnp.multiply, updates, kept)`: then zeros stay.
    """

    cell: Any
    kept: PyTree[Bool[Array, "..."]]


class UnitPruning(eqx.Module):
    """A network with fewer units.

    **Fields:**

    - `cell`: the smaller cell.
    - `units`: the indices of the units that remain (n,), ascending. A readout keeps the columns `units`, and a state
        its entries.
    """

    cell: Any
    units: Int[Array, " n"]


@checked
def prune_weights(
    cell: Cell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    fraction: float | Float[Array, ""],
    where: Callable | None = None,
    num_rounds: int = 10,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    adjoint: Adjoint = CheckpointedAdjoint(),
) -> WeightPruning:
    r"""Set those weights of a network to zero to which its leading Lyapunov exponents are least sensitive.

    $$s_w = \sum_{i=1}^{k} \left(w\, \frac{\partial \lambda_i}{\partial w}\right)^2$$

    is, to first order, the squared change of the k leading exponents if w becomes zero. In each of R rounds the weights
    with the smallest $s_w$ go, and s is computed anew. After round r, $n (1 - f)^{r / R}$ of n weights remain.

    **Arguments:**

    - `cell`, `state`, `inputs`, `num_exponents`, `num_steps`, `transient`: as for `lyapunov_spectrum`.
    - `fraction`: f, the share of the weights that is removed, from 0 to 1. Outside of them all weights are NaN under
        `jit` and `vmap`, where nothing can be raised.
    - `where`: a function from the cell to the array or arrays that are pruned, as in `eqx.tree_at`. Default: all
        arrays of floating-point numbers with two axes or more; biases stay.
    - `num_rounds`: R, 10 by default.
    - `adjoint`: how gradients are computed, as for `spectrum_penalty`.

    **Returns:** a `WeightPruning`. Compare `lyapunov_spectrum` of the cell before and after, with its errors.

    **Raises:**

    - `ValueError`: if `fraction` is outside 0 .. 1, `where` fails, or there is no weight.

    **Numerics:** exponents of lost directions have no gradient and do not count. It costs R k gradients. Works
    under `jit` and `vmap`, over `fraction` too. Choose `inputs` as long as the network runs in use: in a short run the
    exponents still depend on the initial frame.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.GRUCell(2, 16, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (60, 2))
        >>> pruning = lejax.training.prune_weights(
        ...     cell, cell.initial_state(), inputs, fraction=0.5, num_rounds=4, num_exponents=2
        ... )
        >>> int((pruning.cell.weight_hh != 0).sum() + (pruning.cell.weight_ih != 0).sum())  # of 864
        432

    The score has the form of SNIP by Lee, Ajanthan & Torr, ICLR (2019), with exponents in place of the loss; that
    rounds help was shown by Tanaka et al., NeurIPS (2020).
    """
    check_fraction("fraction", fraction)
    chosen = jtu.tree_map(lambda leaf: eqx.is_inexact_array(leaf) and np.ndim(leaf) > 1, cell)
    if where is not None:
        try:
            marks = eqx.tree_at(
                where, jtu.tree_map(lambda _: False, cell), replace_fn=lambda _: True
            )
        except Exception as error:
            raise ValueError(
                "where must take an array or several out of the cell, as lambda cell: cell.weight_hh does, but it "
                f"failed: {type(error).__name__}: {error}"
            ) from error
        chosen = jtu.tree_map(lambda mark, leaf: mark and eqx.is_inexact_array(leaf), marks, cell)
    if not any(eqx.is_inexact_array(leaf) for leaf in jtu.tree_leaves(eqx.filter(cell, chosen))):
        raise ValueError(
            f"{name_of(cell)} has no floating-point matrix to prune: name one with where."
        )
    run = {"num_exponents": num_exponents, "num_steps": num_steps, "transient": transient}
    return _prune_weights(
        cell,
        state,
        inputs,
        jnp.asarray(fraction),  # another number is not another program
        chosen,
        check_count("num_rounds", num_rounds, 1),
        run | {"adjoint": adjoint},
    )


@checked
def prune_units(
    cell: RNNCell | GRUCell | LSTMCell,
    state: PyTree,
    inputs: PyTree = None,
    *,
    num_units: int,
    num_rounds: int = 10,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    adjoint: Adjoint = CheckpointedAdjoint(),
) -> UnitPruning:
    r"""Remove those units of a network to which its leading Lyapunov exponents are least sensitive.

    $$s_j = \sum_{i=1}^{k} \left(\frac{\partial \lambda_i}{\partial m_j}\right)^2$$

    where after each step all numbers of unit j in the state are multiplied by $m_j = 1$. In each of R rounds the units
    with the smallest $s_j$ get $m_j = 0$, and s is computed anew; the share that remains falls by the same factor in
    each.

    **Arguments:**

    - `cell`: an `RNNCell`, a `GRUCell` or an `LSTMCell`.
    - `state`, `inputs`, `num_exponents`, `num_steps`, `transient`: as for `lyapunov_spectrum`.
    - `num_units`: how many units remain.
    - `num_rounds`: R, 10 by default.
    - `adjoint`: how gradients are computed, as for `spectrum_penalty`.

    **Returns:** a `UnitPruning`.

    **Raises:**

    - `TypeError`: if the cell is of another type.
    - `ValueError`: if `num_units` is above the number of units.

    **Numerics:** as for `prune_weights`. Under `vmap` each network loses other units.

    !!! example

        >>> import jax, lejax
        >>> cell = lejax.cells.LSTMCell(2, 16, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (60, 2))
        >>> pruning = lejax.training.prune_units(
        ...     cell, cell.initial_state(), inputs, num_units=12, num_rounds=2, num_exponents=2
        ... )
        >>> pruning.cell.weight_hh.shape, pruning.units.shape
        ((48, 12), (12,))
    """
    size = cell.weight_hh.shape[1]
    count = check_count("num_units", num_units, 1)
    if count > size:
        raise ValueError(f"num_units is {count}, but the {name_of(cell)} has {size} units.")
    run = {"num_exponents": num_exponents, "num_steps": num_steps, "transient": transient}
    state = check_state(state)
    # Only traced: arguments that do not fit the cell are named before the state meets factors.
    eqx.filter_eval_shape(ft.partial(lyapunov_spectrum, throw=False, **run), cell, state, inputs)
    units = _choose_units(
        cell,
        state,
        inputs,
        size,
        count,
        check_count("num_rounds", num_rounds, 1),
        run | {"adjoint": adjoint},
    )
    return UnitPruning(take_units(cell, units), units)


@compiled
def _prune_weights(cell, state, inputs, fraction, chosen, num_rounds, run) -> WeightPruning:
    pruned, rest = eqx.partition(cell, chosen)
    weights, unravel = ravel_pytree(pruned)

    def exponents(factors):
        return _exponents(eqx.combine(unravel(weights * factors), rest), state, inputs, run)

    fraction = jnp.where((fraction >= 0) & (fraction <= 1), fraction, jnp.nan)
    num_kept = jnp.round(weights.size * (1 - fraction))
    # `shard_map` would sum derivatives by numbers that its devices share.
    ones = vary_with(jnp.ones_like(weights), (cell, state, inputs))
    factors = _remove(exponents, ones, num_kept, num_rounds)
    others = jtu.tree_map(lambda x: jnp.ones(x.shape, bool), eqx.filter(rest, eqx.is_inexact_array))
    kept = eqx.combine(jtu.tree_map(lambda x: x != 0, unravel(factors)), others)
    factors = jnp.where(jnp.isnan(fraction), jnp.nan, factors)
    return WeightPruning(eqx.combine(unravel(weights * factors), rest), kept)


class _Gated(eqx.Module):
    """A cell whose state is multiplied by one factor for each unit after each step."""

    cell: Cell
    factors: Float[Array, " h"]

    def __call__(self, input, state):
        return jtu.tree_map(lambda x: x * self.factors, self.cell(input, state))


@compiled
def _choose_units(cell, state, inputs, size, count, num_rounds, run) -> Int[Array, " n"]:
    def exponents(factors):
        # Removed units start at zero too.
        start = jtu.tree_map(lambda x: x * jax.lax.stop_gradient(factors), state)
        return _exponents(_Gated(cell, factors), start, inputs, run)

    # `shard_map` would sum derivatives by numbers that its devices share.
    ones = jnp.ones(size, jtu.tree_leaves(state)[0].dtype)
    ones = vary_with(ones, (cell, state, inputs))
    factors = _remove(exponents, ones, jnp.asarray(count), num_rounds)
    return jnp.nonzero(factors, size=count)[0]


def _exponents(cell, state, inputs, run) -> Float[Array, " k"]:
    """The exponents, those of lost directions as constants."""
    spectrum = lyapunov_spectrum(cell, state, inputs, num_blocks=2, throw=False, **run)
    return jnp.where(are_resolved(spectrum), spectrum.exponents, 0)


def _remove(
    exponents: Callable[[Float[Array, " n"]], Float[Array, " k"]],
    factors: Float[Array, " n"],
    num_kept: Float[Array, ""],
    num_rounds: int,
) -> Float[Array, " n"]:
    """Set all but `num_kept` of the factors, which are 1, to 0: those to which the exponents are least sensitive."""
    size = factors.size

    def step(factors, round):
        sensitivity = jnp.sum(jax.jacrev(exponents)(factors) ** 2, axis=0)
        sensitivity = jnp.where(factors > 0, sensitivity, -1)  # what is removed stays so
        remaining = jnp.round(size * (num_kept / size) ** (round / num_rounds)).astype(int)
        least = jnp.sort(sensitivity, descending=True)[jnp.maximum(remaining - 1, 0)]
        is_tied = sensitivity == least
        num_free = remaining - jnp.sum(sensitivity > least)
        is_kept = (sensitivity > least) | (is_tied & (jnp.cumsum(is_tied) <= num_free))
        return jnp.where(is_kept, factors, 0), None

    return jax.lax.scan(step, factors, jnp.arange(1, num_rounds + 1))[0]
