"""Symbolic dynamics: trajectories as sequences of regions, their transitions and their block entropies."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from scipy.sparse.csgraph import connected_components

from .._core.cell import Cell
from .._core.check_annotations import checked
from .._core.check_cell import check_state
from .._core.check_values import check_concrete, check_count
from .._core.piecewise_linear import piecewise_linear


_MAX_BITS = 31  # in an int32


@checked
def region_codes(cell: Cell, states: Float[Array, "t m"], input: PyTree = None) -> Int[Array, " t"]:
    r"""The region of each state of a trajectory, as an integer.

    $$s_t = \sum_{i=1}^{H} 2^{H - i} [W_2 z_t + h_2 > 0]_i$$

    **Arguments:**

    - `cell`: anything that `lejax.piecewise_linear` accepts, with H <= 31 hyperplanes.
    - `states`: the trajectory (T, M), one state a row.
    - `input`: the constant input of the cell, or `None`.

    **Returns:** the codes (T,), integers from 0 to 2^H - 1. The first hyperplane has the highest bit.

    **Raises:**

    - `ValueError`: if `states` has another shape, or if there are more than 31 hyperplanes.

    **Numerics:** O(T M H). It can be traced.

    !!! example

        >>> import jax.numpy as jnp, lejax
        >>> lozi = lejax.systems.Lozi(1.7, 0.5)
        >>> states = lejax.unroll(lozi, jnp.array([0.1, 0.1]), num_steps=8)
        >>> lejax.plrnn.region_codes(lozi, states)
        Array([1, 0, 1, 0, 1, 0, 1, 1], dtype=...)

    Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024).
    """
    net = piecewise_linear(cell, input)
    states = check_state(states)
    if jnp.ndim(states) != 2 or states.shape[1] != net.h1.size:
        raise ValueError(
            f"states must have shape (T, {net.h1.size}), one a row, got {jnp.shape(states)}."
        )
    if net.h2.size > _MAX_BITS:
        raise ValueError(
            f"a code holds at most {_MAX_BITS} hyperplanes, and this network has {net.h2.size}."
        )
    powers = 2 ** jnp.arange(net.h2.size)[::-1]
    return jnp.sum(
        jax.vmap(net.region)(states).astype(powers.dtype) * powers[None], axis=1, dtype=powers.dtype
    )


class Switches(eqx.Module):
    """A symbol sequence with its n runs of equal symbols merged, as NumPy arrays.

    **Fields:**

    - `codes` (n,): the symbol of each run; neighbors differ. The first and the last run of the sequence are left out,
        because the sequence may cut them short.
    - `durations` (n,): the number of samples in each run.
    """

    codes: Int[np.ndarray, " n"]
    durations: Int[np.ndarray, " n"]

    @property
    def mean_duration(self) -> float:
        """The mean number of samples in a run. An entropy per switch divided by it is an entropy per sample."""
        return float(np.mean(self.durations))


@checked
def find_switches(codes: Int[Array, " t"]) -> Switches:
    r"""Merge runs of equal symbols, so that each entry is a switch from one symbol to another.

    $$s_1 s_1 s_1 s_2 s_2 s_3 \ldots \mapsto s_1 s_2 s_3 \ldots$$

    Take block entropies of the result where symbols repeat for many samples. At a small time step almost all blocks of
    n samples hold one symbol n times, and the entropy per sample reaches its limit only in blocks that are longer than
    a run. A block of n switches spans n runs.

    **Arguments:**

    - `codes`: the symbol sequence (T,), integers.

    **Returns:** a `Switches`.

    **Raises:**

    - `ValueError`: if `codes` is not a sequence of integers, or if it has fewer than two switches.
    - `TypeError`: under `jit`, `vmap` or `grad`.

    **Numerics:** O(T), on the host.

    !!! example

        >>> import numpy as np, lejax
        >>> switches = lejax.plrnn.find_switches(np.array([0, 0, 3, 3, 3, 1, 0]))
        >>> switches.codes, switches.durations
        (array([3, 1]), array([3, 1]))
    """
    symbols = _check_codes("find_switches", codes)
    starts = np.flatnonzero(np.diff(symbols)) + 1
    if starts.size < 2:
        raise ValueError(
            f"codes switch {starts.size} times, but a complete run needs a switch at both ends."
        )
    return Switches(symbols[starts[:-1]], np.diff(starts))


@checked
def block_codes(codes: Int[Array, " t"], length: int) -> Int[np.ndarray, " b"]:
    r"""The sequence of overlapping blocks of n symbols, each block as one integer.

    $$b_t = \operatorname{rank}(s_t s_{t+1} \ldots s_{t+n-1}), \qquad t = 1 .. T - n + 1$$

    **Arguments:**

    - `codes`: the symbol sequence (T,), integers.
    - `length`: the number n of symbols in a block.

    **Returns:** the codes of the blocks (T - n + 1,): their rank in lexicographic order among the distinct blocks of
    this sequence, from 0. They are again a symbol sequence.

    **Raises:**

    - `ValueError`: if `codes` is not a sequence of integers, or if it is shorter than `length`.
    - `TypeError`: under `jit`, `vmap` or `grad`.

    **Numerics:** O(n T log T), on the host.

    !!! example

        >>> import numpy as np, lejax
        >>> lejax.plrnn.block_codes(np.array([0, 1, 0, 1, 1]), 2)  # 01, 10, 01, 11
        array([0, 1, 0, 2])
    """
    symbols = _check_codes("block_codes", codes)
    length = check_count("length", length, 1)
    if length > symbols.size:
        raise ValueError(f"length is {length}, but there are only {symbols.size} symbols.")
    return list(_blocks(symbols, length))[-1]


class SymbolTransitions(eqx.Module):
    """The transitions among n symbols, as NumPy arrays.

    **Fields:**

    - `symbols` (n,): the distinct symbols in ascending order.
    - `counts` (n, n): how often the symbol of the column follows the symbol of the row.
    """

    symbols: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, "n n"]

    @property
    def probabilities(self) -> Float[np.ndarray, "n n"]:
        """The transition matrix, whose rows sum to 1. A symbol that occurs only at the very end has a row of zeros."""
        total = np.sum(self.counts, axis=1, keepdims=True)
        return self.counts / np.where(total > 0, total, 1)

    @property
    def adjacency(self) -> Bool[np.ndarray, "n n"]:
        """Whether each transition occurs."""
        return self.counts > 0

    @property
    def topological_entropy(self) -> float:
        """The log of the spectral radius of the adjacency matrix, in nats per symbol; -inf if the graph has no cycle.

        It counts all sequences that the graph allows, and so is an upper bound of the topological entropy of the
        system. The bound decreases with the length of the blocks in `block_codes`. Transitions that a finite sequence
        does not show are missing from it.
        """
        # Each strongly connected component by itself: eigenvalues of the full matrix may be defective.
        num_components, component = connected_components(self.adjacency, connection="strong")
        largest = -np.inf
        for i in range(num_components):
            block = self.adjacency[np.ix_(component == i, component == i)]
            if np.any(block):
                radius = np.max(np.abs(np.linalg.eigvals(block.astype(float))))
                largest = max(largest, float(np.log(radius)))
        return largest

    def graph(self) -> Any:
        """A `networkx.DiGraph`: symbols are nodes, transitions are edges with attributes `probability` and `count`."""
        import networkx

        graph = networkx.DiGraph()
        graph.add_nodes_from(self.symbols.tolist())
        for i, j in np.argwhere(self.adjacency):
            graph.add_edge(
                int(self.symbols[i]),
                int(self.symbols[j]),
                probability=float(self.probabilities[i, j]),
                count=int(self.counts[i, j]),
            )
        return graph


@checked
def symbol_transitions(codes: Int[Array, " t"]) -> SymbolTransitions:
    r"""The transitions of a symbol sequence: counts, transition matrix, graph, topological entropy.

    $$h_\text{top} \le \log \rho(A), \qquad A_{ij} = [\text{symbol j ever follows symbol i}]$$

    **Arguments:**

    - `codes`: the symbol sequence (T,), integers: from `region_codes`, the `codes` of a `Switches`, or from
        `block_codes` for a memory of more than one symbol.

    **Returns:** a `SymbolTransitions`.

    **Raises:**

    - `ValueError`: if `codes` is not a sequence of integers.
    - `TypeError`: under `jit`, `vmap` or `grad`.

    **Numerics:** O(T log T), on the host. n symbols take a dense matrix of n^2 counts.

    !!! example

        >>> import numpy as np, lejax
        >>> transitions = lejax.plrnn.symbol_transitions(np.array([0, 1, 1, 0, 1, 1, 1]))
        >>> transitions.probabilities  # 0 never follows 0
        array([[0.  , 1.  ],
               [0.25, 0.75]])
        >>> print(f"{transitions.topological_entropy:.4f}")  # log of the golden mean
        0.4812

    Brenner, Hemmer, Monfared & Durstewitz, NeurIPS 37 (2024).
    """
    sequence = _check_codes("symbol_transitions", codes)
    symbols, indices = np.unique(sequence, return_inverse=True)
    counts = np.zeros((symbols.size, symbols.size), int)
    np.add.at(counts, (indices[:-1], indices[1:]), 1)
    return SymbolTransitions(symbols, counts)


class BlockEntropies(eqx.Module):
    """Shannon entropies of blocks of 1 .. n symbols, as NumPy arrays, in nats.

    **Fields:**

    - `entropies` (n,): H_1 .. H_n of the observed frequencies.
    - `num_blocks` (n,): the number of distinct blocks of each length in the sequence.
    - `num_samples` (n,): the number of all blocks of each length in the sequence, repeated ones included.
    """

    entropies: Float[np.ndarray, " n"]
    num_blocks: Int[np.ndarray, " n"]
    num_samples: Int[np.ndarray, " n"]

    @property
    def conditional(self) -> Float[np.ndarray, " n"]:
        """h_n = H_n - H_(n-1) with H_0 = 0: the entropy of a symbol given the n - 1 before it, in nats per symbol.

        Without sampling error these decrease to the entropy rate, so each is an upper bound of it.
        """
        return np.diff(self.entropies, prepend=0.0)

    @property
    def bias(self) -> Float[np.ndarray, " n"]:
        """How much H_n is too low, to leading order for independent samples: (distinct blocks - 1) / (2 blocks).

        It counts only blocks that occur. Where it is no longer small against h_n, neither H_n nor h_n is meaningful:
        h_n then falls below the entropy rate, to 0.
        """
        return (self.num_blocks - 1) / (2 * self.num_samples)


@checked
def block_entropies(codes: Int[Array, " t"], max_length: int) -> BlockEntropies:
    r"""The block entropies of a symbol sequence, whose differences bound its entropy rate.

    $$H_n = -\sum_w p(w) \log p(w), \qquad h_n = H_n - H_{n-1} \searrow h$$

    The sum runs over the words w of n symbols. For a generating partition h is the Kolmogorov-Sinai entropy, for any
    other partition a lower bound of it. If the invariant measure is smooth along the unstable directions, that entropy
    is the sum of the positive exponents, `kolmogorov_sinai_entropy` (Pesin's identity).

    **Arguments:**

    - `codes`: the symbol sequence (T,), integers. Where symbols repeat for many samples, take the `codes` of
        `find_switches` and divide by `mean_duration`: h_n of the samples themselves is far above its limit at any n
        that can be sampled.
    - `max_length`: the largest number n of symbols in a block.

    **Returns:** a `BlockEntropies` for the lengths 1 .. n.

    **Raises:**

    - `ValueError`: if `codes` is not a sequence of integers, or if it is shorter than `max_length`.
    - `TypeError`: under `jit`, `vmap` or `grad`.

    **Numerics:** O(n T log T), on the host. Observed frequencies make H_n too low; see `bias`.

    !!! example

        >>> import jax, lejax
        >>> coins = jax.random.bernoulli(jax.random.key(0), shape=(100_000,)).astype(int)
        >>> lejax.plrnn.block_entropies(coins, 3).conditional.round(3)
        array([0.693, 0.693, 0.693])

    Shannon, Bell Syst. Tech. J. 27 (1948); Miller, Information Theory in Psychology (1955), for the bias.
    """
    symbols = _check_codes("block_entropies", codes)
    max_length = check_count("max_length", max_length, 1)
    if max_length > symbols.size:
        raise ValueError(f"max_length is {max_length}, but there are only {symbols.size} symbols.")
    rows = []
    for blocks in _blocks(symbols, max_length):
        counts = np.bincount(blocks)
        frequencies = counts / blocks.size
        entropy = -np.sum(frequencies * np.log(frequencies))
        rows.append((entropy, counts.size, blocks.size))
    entropies, num_blocks, num_samples = map(np.array, zip(*rows, strict=True))
    return BlockEntropies(entropies, num_blocks, num_samples)


def _blocks(symbols, max_length: int) -> Iterator[Int[np.ndarray, " b"]]:
    """The codes of the blocks of 1, 2, .. symbols. They are below the number of samples: products do not overflow."""
    letters = np.unique(symbols, return_inverse=True)[1]
    blocks = letters
    yield blocks
    for n in range(1, max_length):
        longer = blocks[:-1] * (np.max(letters) + 1) + letters[n:]
        blocks = np.unique(longer, return_inverse=True)[1]
        yield blocks


def _check_codes(name, codes) -> Int[np.ndarray, " t"]:
    check_concrete(name, codes)
    symbols = np.asarray(codes)
    if symbols.ndim != 1 or symbols.size == 0 or not np.issubdtype(symbols.dtype, np.integer):
        raise ValueError(
            f"codes must be a sequence of integers, got {symbols.dtype} of shape {symbols.shape}."
        )
    return symbols.astype(np.int64)
