"""Penalties on the exponents of a batch of sequences, or of some of them drawn by a key."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core.cell import Cell, initial_state
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_types import NUMBERS, check_array
from .._core.check_values import check_count
from .._engine.adjoint import Adjoint, CheckpointedAdjoint
from ._penalty import spectrum_penalty


@checked
def batch_penalty(
    cell: Cell,
    states: PyTree = None,
    inputs: PyTree = None,
    *,
    function: Callable[[Float[Array, " k"]], Float[Array, " k"] | Float[Array, ""]],
    num_sequences: int | None = None,
    key: PRNGKeyArray | None = None,
    num_exponents: int | None = None,
    num_steps: int | None = None,
    transient: int = 0,
    adjoint: Adjoint = CheckpointedAdjoint(),
) -> Float[Array, ""]:
    r"""Average a function of the Lyapunov exponents over the sequences of a batch, for a training loss.

    $$P = \frac{1}{b} \sum_{s \in S} P_s, \qquad |S| = b \le B$$

    with the `spectrum_penalty` $P_s$ of each sequence.

    **Arguments:**

    - `cell`: as for `lyapunov_spectrum`: a module, a function of parameters that it closes over, or a network of Flax
        by `lejax.interop.from_flax`.
    - `states`: the initial states, with leading axis B. Default: for each sequence that of the cell, if it has one: a
        `lejax.RecurrentCell`, as all of `lejax.cells` and of `lejax.interop`, or a cell of Equinox.
    - `inputs`: the sequences, a pytree of arrays (B, T, ...), or `None` for an autonomous cell.
    - `function`: as for `spectrum_penalty`: a `BandPenalty`, `lejax.kolmogorov_sinai_entropy`, or your own.
    - `num_sequences`: b, how many sequences count. Default: all.
    - `key`: draws these without replacement, anew for a new key. Default: the first b, for batches that are themselves
        drawn at random.
    - `num_exponents`, `num_steps`, `transient`, `adjoint`: as for `spectrum_penalty`.

    **Returns:** a scalar; NaN if a sequence that counts leads to numbers that are not finite.

    **Raises:**

    - `ValueError`: if states and inputs are not of one number of sequences, or there are fewer than `num_sequences`.
    - `TypeError`: if `states` is `None` and the cell does not say its initial state.

    **Numerics:** that of `spectrum_penalty` under `jax.vmap` over the sequences: each step multiplies the weights with
    the states and tangents of all b sequences at once. The cost of value and gradient grows with b and with the number
    of exponents; of a batch of 32 a few sequences do.

    !!! example

        >>> import equinox as eqx, jax, lejax
        >>> cell = lejax.cells.GRUCell(3, 16, key=jax.random.key(0))
        >>> inputs = jax.random.normal(jax.random.key(1), (32, 25, 3))  # 32 sequences of 25 steps
        >>> to_zero = lejax.training.BandPenalty(lower=0.0, upper=0.0)
        >>> def penalty(cell, key):
        ...     return lejax.training.batch_penalty(
        ...         cell, None, inputs, function=to_zero, num_sequences=4, key=key, num_exponents=2, transient=5
        ...     )
        >>> value, gradient = eqx.filter_value_and_grad(penalty)(cell, jax.random.key(2))
        >>> value.shape, gradient.weight_hh.shape
        ((), (48, 16))
    """
    states = None if states is None else check_state(states)
    inputs = jax.tree.map(lambda x: jnp.asarray(check_array("inputs", x, NUMBERS)), inputs)
    size = _count_sequences(states, inputs)
    if states is None:
        state = initial_state(cell)
        states = jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *jnp.shape(x))), state)
    count = size if num_sequences is None else check_count("num_sequences", num_sequences, 1)
    if count > size:
        raise ValueError(f"num_sequences is {count}, but the batch holds {size} sequences.")
    chosen = slice(count) if key is None else jr.permutation(key, size)[:count]
    if count < size:
        states, inputs = jax.tree.map(lambda x: jnp.asarray(x)[chosen], (states, inputs))

    def penalty(state: PyTree, inputs: PyTree) -> Float[Array, ""]:
        return spectrum_penalty(
            cell,
            state,
            inputs,
            function=function,
            num_exponents=num_exponents,
            num_steps=num_steps,
            transient=transient,
            adjoint=adjoint,
        )

    return jnp.mean(jax.vmap(penalty)(states, inputs))


def _count_sequences(states: PyTree, inputs: PyTree) -> int:
    """B, the length of the first axis of every array."""
    sizes = {}
    for name, tree in (("states", states), ("inputs", inputs)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            shape = jnp.shape(leaf)
            if not shape:
                raise ValueError(
                    f"{name}{jax.tree_util.keystr(path)} is one number, but {name} must have the sequences of the "
                    "batch as first axis."
                )
            sizes[name + jax.tree_util.keystr(path)] = shape[0]
    if not sizes:
        raise ValueError("a batch needs states, inputs, or both; got neither.")
    (first, size), *rest = sizes.items()
    for name, other in rest:
        if other != size:
            raise ValueError(
                f"{first} has {size} sequences, {name} has {other}: both need the sequences of the batch as first "
                "axis; states=None starts each at the cell's own initial state."
            )
    if size == 0:
        raise ValueError(f"{first} holds no sequence, but a batch needs at least one.")
    return size
