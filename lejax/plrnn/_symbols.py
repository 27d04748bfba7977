"""Symbolic dynamics: trajectories as sequences of regions, their transitions and their entropies."""

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


_MOST_BITS = 31  # that an int32 holds


@checked
def region_codes(cell: Cell, states: Float[Array, "t m"], input: PyTree = None) -> Int[Array, " t"]:
    r"""The regions along a trajectory as integers, the first hyperplane's bit the highest.

    $$s_t = \sum_{i=1}^{H} 2^{H - i} [W_2 z_t + h_2 > 0]_i$$

    **Arguments:** `cell`, anything that `lejax.piecewise_linear` accepts, with at most 31 hyperplanes, and its constant
    `input`; `states` (T, M).

    **Returns:** (T,) integers.

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
    if net.h2.size > _MOST_BITS:
        raise ValueError(
            f"a code holds at most {_MOST_BITS} hyperplanes, and this network has {net.h2.size}."
        )
    powers = 2 ** jnp.arange(net.h2.size)[::-1]
    return jnp.sum(
        jax.vmap(net.region)(states).astype(powers.dtype) * powers[None], axis=1, dtype=powers.dtype
    )


class Switches(eqx.Module):
    """A symbol sequence by its n switches, as NumPy arrays.

    **Fields:**

    - `codes` (n,): The symbols in turn, no two neighbors the same. The first and the last stay are left out: they
        may be cut.
    - `durations` (n,): How many samples each stays.
    """

    codes: Int[np.ndarray, " n"]
    durations: Int[np.ndarray, " n"]

    @property
    def mean_duration(self) -> float:
        """In samples: entropies per switch over it are entropies per sample."""
        return float(np.mean(self.durations))


@checked
def find_switches(codes: Int[Array, " t"]) -> Switches:
    """A symbol sequence by its switches: what to take block entropies of where symbols repeat for many samples.

    At a small time step almost all words of n samples are n times the same symbol, and the entropy per sample needs
    blocks longer than a stay to come down to its limit. Blocks of n switches span n stays.

    **Arguments:** `codes` (T,), integers.

    **Returns:** a `Switches`; runs on the host and cannot be traced.

    !!! example

        >>> import numpy as np, lejax
        >>> switches = lejax.plrnn.find_switches(np.array([0, 0, 3, 3, 3, 1, 0]))
        >>> switches.codes, switches.durations
        (array([3, 1]), array([3, 1]))
    """
    symbols = _check_codes("find_switches", codes)
    starts = np.flatnonzero(np.diff(symbols)) + 1
    if starts.size < 2:
        raise ValueError(f"codes switch {starts.size} times; at least 2 are needed for a stay.")
    return Switches(symbols[starts[:-1]], np.diff(starts))


@checked
def block_codes(codes: Int[Array, " t"], length: int) -> Int[np.ndarray, " b"]:
    """The T - n + 1 overlapping blocks of n symbols, numbered in lexicographic order: a sequence like any other.

    **Arguments:** `codes` (T,), integers; `length` n.

    **Returns:** (T - n + 1,) integers below the number of distinct blocks; runs on the host and cannot be traced.

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
    """Which of n symbols follows which, as NumPy arrays.

    **Fields:**

    - `symbols` (n,): The distinct symbols in ascending order.
    - `counts` (n, n): How often the column's symbol follows the row's.
    """

    symbols: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, "n n"]

    @property
    def probabilities(self) -> Float[np.ndarray, "n n"]:
        """The transition matrix: rows sum to 1. A symbol seen only at the very end has a row of zeros."""
        total = np.sum(self.counts, axis=1, keepdims=True)
        return self.counts / np.where(total > 0, total, 1)

    @property
    def adjacency(self) -> Bool[np.ndarray, "n n"]:
        """Whether the transition was seen at all."""
        return self.counts > 0

    @property
    def topological_entropy(self) -> float:
        """Nats per symbol: log of the spectral radius of the adjacency matrix.

        That of all sequences that the graph allows, so an upper bound of that of the sequences there are, which goes
        down with the length of the blocks in `block_codes`; of a finite sequence it misses what was not seen. -inf
        if the graph has no cycle.
        """
        # Of each strongly connected part by itself: the eigenvalues of all of them together may be defective.
        count, parts = connected_components(self.adjacency, connection="strong")
        largest = -np.inf
        for part in range(count):
            inside = self.adjacency[np.ix_(parts == part, parts == part)]
            if np.any(inside):
                radius = np.max(np.abs(np.linalg.eigvals(inside.astype(float))))
                largest = max(largest, float(np.log(radius)))
        return largest

    def graph(self) -> Any:
        """A `networkx.DiGraph`: symbols are nodes, transitions edges with `probability` and `count`."""
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
    r"""The transitions of a symbol sequence: counts, row-stochastic matrix, graph, topological entropy.

    $$h_\text{top} \le \log \rho(A), \qquad A_{ij} = [\text{symbol j ever follows symbol i}]$$

    **Arguments:** `codes` (T,), integers, from `region_codes`, of a `Switches`, or from `block_codes` for a memory of
    more than one symbol.

    **Returns:** a `SymbolTransitions`; runs on the host and cannot be traced.

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
    symbols, places = np.unique(sequence, return_inverse=True)
    counts = np.zeros((symbols.size, symbols.size), int)
    np.add.at(counts, (places[:-1], places[1:]), 1)
    return SymbolTransitions(symbols, counts)


class BlockEntropies(eqx.Module):
    """Shannon entropies of blocks of 1 .. n symbols, as NumPy arrays, in nats.

    **Fields:**

    - `entropies` (n,): H_1 .. H_n of the observed frequencies.
    - `num_blocks` (n,): How many distinct blocks of each length were seen.
    - `num_samples` (n,): How many blocks of each length there were, the same ones counted again.
    """

    entropies: Float[np.ndarray, " n"]
    num_blocks: Int[np.ndarray, " n"]
    num_samples: Int[np.ndarray, " n"]

    @property
    def conditional(self) -> Float[np.ndarray, " n"]:
        """h_n = H_n - H_(n-1), with H_0 = 0: of a symbol given the n - 1 before it, nats per symbol.

        Without sampling error these decrease to the entropy rate, so each is an upper bound of it.
        """
        return np.diff(self.entropies, prepend=0.0)

    @property
    def bias(self) -> Float[np.ndarray, " n"]:
        """By how much H_n is too low, to leading order: (distinct blocks - 1) / (2 blocks). Of independent samples.

        Blocks not seen are not counted, so where this is no longer small against h_n, neither H_n nor h_n mean
        anything: h_n then falls below the entropy rate, to 0.
        """
        return (self.num_blocks - 1) / (2 * self.num_samples)


@checked
def block_entropies(codes: Int[Array, " t"], max_length: int) -> BlockEntropies:
    r"""Block entropies of a symbol sequence, and what they say of the entropy rate.

    $$H_n = -\sum_w p(w) \log p(w), \qquad h_n = H_n - H_{n-1} \searrow h$$

    over the words w of n symbols. For a generating partition h is the Kolmogorov-Sinai entropy, for any other a lower
    bound of it; by Pesin's identity it is then the sum of the positive exponents, `kolmogorov_sinai_entropy`, where the
    invariant measure is smooth along the unstable directions.

    **Arguments:** `codes` (T,), integers; `max_length` n. Where symbols repeat for many samples take the `codes` of
    `find_switches` and divide by `mean_duration`: h_n of samples is still far above its limit at any n that can be
    sampled.

    **Returns:** a `BlockEntropies`; runs on the host and cannot be traced.

    **Numerics:** O(n T log T). Observed frequencies make H_n too low; see `bias`.

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
        shares = counts / blocks.size
        rows.append((-np.sum(shares * np.log(shares)), counts.size, blocks.size))
    entropies, num_blocks, num_samples = map(np.array, zip(*rows, strict=True))
    return BlockEntropies(entropies, num_blocks, num_samples)


def _blocks(symbols, longest: int) -> Iterator[Int[np.ndarray, " b"]]:
    """The numbered blocks of 1, 2, .. symbols. Numbers stay below the number of samples, so products do not overflow."""
    letters = np.unique(symbols, return_inverse=True)[1]
    blocks = letters
    yield blocks
    for n in range(1, longest):
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
