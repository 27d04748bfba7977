"""Symbolic dynamics: tent maps of known entropy, Pesin's identity, switches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax.plrnn import (
    block_codes,
    block_entropies,
    find_switches,
    region_codes,
    symbol_transitions,
)


def tent(rise, fall):
    """A map of [0, 1]: `rise` x on the left of its peak, `fall` (1 - x) on the right."""
    peak = fall / (rise + fall)
    arrays = [[rise]], [[-rise - fall]], [[1.0]], [0.0], [-peak]
    return lejax.PiecewiseLinearMap(*(np.array(x) for x in arrays))


def codes_of(net, num_steps=200_000, start=0.3779):
    state = jnp.full(net.h1.size, start)
    return np.asarray(region_codes(net, lejax.unroll(net, state, num_steps=num_steps)))


@pytest.fixture(scope="module")
def skew():
    a = 0.3
    return a, codes_of(tent(1 / a, 1 / (1 - a)))


def test_full_tent_map_is_a_biased_coin(skew):
    a, codes = skew
    entropy = -a * np.log(a) - (1 - a) * np.log(1 - a)  # also its exponent
    blocks = block_entropies(codes, 8)
    np.testing.assert_allclose(blocks.entropies, entropy * np.arange(1, 9), rtol=0.005)
    np.testing.assert_allclose(blocks.conditional, entropy, rtol=0.01)
    # All words occur, so that the topological entropy is log 2 per symbol.
    np.testing.assert_array_equal(blocks.num_blocks, 2 ** np.arange(1, 9))
    np.testing.assert_array_equal(blocks.num_samples, codes.size - np.arange(8))
    transitions = symbol_transitions(codes)
    np.testing.assert_allclose(transitions.topological_entropy, np.log(2), rtol=1e-12)
    np.testing.assert_allclose(transitions.probabilities, [[a, 1 - a]] * 2, atol=0.01)


def test_golden_mean():
    """With this slope the left half is mapped to the right half: entropies, exponent and log slope are all equal."""
    golden = (1 + 5**0.5) / 2
    codes = codes_of(tent(golden, golden))
    transitions = symbol_transitions(codes)
    np.testing.assert_array_equal(transitions.adjacency, [[False, True], [True, True]])
    np.testing.assert_allclose(transitions.topological_entropy, np.log(golden), rtol=1e-12)
    blocks = block_entropies(codes, 6)
    np.testing.assert_array_equal(blocks.num_blocks, [2, 3, 5, 8, 13, 21])
    np.testing.assert_allclose(blocks.conditional[1:], np.log(golden), rtol=0.01)


def test_longer_blocks_tighten_the_topological_entropy():
    codes = codes_of(tent(1.8, 1.8))
    bounds = [symbol_transitions(block_codes(codes, n)).topological_entropy for n in (1, 3, 5, 8)]
    assert np.all(np.diff(bounds) <= 1e-12)
    assert (
        np.log(1.8) < bounds[-1] < np.log(1.8) + 0.01
    )  # log of the slope, by Misiurewicz and Szlenk
    assert bounds[0] > np.log(1.8) + 0.05


def test_lozi_entropy_is_its_exponent():
    """The signs of x are a generating partition, so conditional entropies converge to the positive exponent (Pesin)."""
    lozi = lejax.systems.Lozi(1.7, 0.5)
    codes = region_codes(lozi, lejax.unroll(lozi, jnp.array([0.1, 0.1]), num_steps=300_000))
    blocks = block_entropies(codes, 12)
    assert np.all(np.diff(blocks.conditional[:10]) <= 1e-3)
    assert blocks.bias[-1] < 0.01
    np.testing.assert_allclose(blocks.conditional[-1], 0.4703, atol=0.02)


def test_switches_are_the_entropy_of_slow_symbols(skew):
    """The entropy per sample of a coin that is thrown once in 50 samples is log 2 / 50."""
    _, coin = skew
    random = np.random.default_rng(0)
    symbols = (
        np.cumsum(random.integers(1, 3, 20_000)) % 3
    )  # the next of three symbols is one of the other two
    codes = np.repeat(symbols, 50)
    switches = find_switches(codes)
    np.testing.assert_array_equal(switches.codes, symbols[1:-1])
    assert switches.mean_duration == 50
    rate = block_entropies(switches.codes, 4).conditional[-1] / switches.mean_duration
    np.testing.assert_allclose(rate, np.log(2) / 50, rtol=0.01)
    # Blocks of 12 samples are shorter than a run, so that their entropy rate is still too large.
    assert block_entropies(codes, 12).conditional[-1] > 5 * rate
    total = find_switches(coin).durations.sum()
    assert coin.size - 60 < total < coin.size


def test_codes_are_bits_with_the_first_highest():
    weights = {"a": np.ones(4), "W": np.zeros((4, 4)), "h": np.zeros(4)}
    cell = lejax.cells.ALRNN.from_weights(**weights, num_relu=3)
    states = jnp.array([[9.0, 1.0, -1.0, 1.0], [9.0, -1.0, -1.0, -1.0], [9.0, 0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(region_codes(cell, states), [5, 0, 2])
    np.testing.assert_array_equal(jax.jit(lambda z: region_codes(cell, z))(states), [5, 0, 2])


def test_a_path_without_return_has_no_entropy():
    transitions = symbol_transitions(np.array([4, 2, 7]))
    assert transitions.topological_entropy == -np.inf
    np.testing.assert_array_equal(transitions.symbols, [2, 4, 7])
    np.testing.assert_array_equal(transitions.probabilities, [[0, 0, 1], [1, 0, 0], [0, 0, 0]])
    cycle = symbol_transitions(np.array([4, 2, 7, 4, 2]))
    np.testing.assert_allclose(cycle.topological_entropy, 0, atol=1e-12)


def test_graph(skew):
    networkx = pytest.importorskip("networkx", reason="pip install 'lejax[graph]'")
    graph = symbol_transitions(np.array([0, 1, 1, 0, 1, 1, 1])).graph()
    assert isinstance(graph, networkx.DiGraph)
    assert sorted(graph.edges) == [(0, 1), (1, 0), (1, 1)]
    assert graph.edges[1, 1] == {"probability": 0.75, "count": 3}
    assert networkx.is_strongly_connected(graph)


def test_bad_arguments():
    with pytest.raises(TypeError, match="codes must be an array of integers, got float64"):
        symbol_transitions(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="max_length is 4, but there are only 3 symbols"):
        block_entropies(np.arange(3), 4)
    with pytest.raises(ValueError, match="length is 4, but there are only 3 symbols"):
        block_codes(np.arange(3), 4)
    with pytest.raises(ValueError, match="codes switch 1 times"):
        find_switches(np.array([0, 0, 1]))
    with pytest.raises(ValueError, match=r"states must have shape \(T, 2\)"):
        region_codes(lejax.systems.Lozi(), jnp.zeros(2))
    wide = lejax.PiecewiseLinearMap(np.eye(1), np.ones((1, 40)), np.ones((40, 1)), np.ones(1), np.ones(40))  # fmt: skip
    with pytest.raises(ValueError, match="at most 31 hyperplanes, and this network has 40"):
        region_codes(wide, jnp.zeros((2, 1)))


def test_entropy_of_a_chain_of_cycles_is_zero_whatever_the_labels():
    codes = np.concatenate([[2 * k, 2 * k + 1] * 2 for k in range(40)])
    labels = np.random.default_rng(0).permutation(80)
    for sequence in (codes, labels[codes]):
        assert lejax.plrnn.symbol_transitions(sequence).topological_entropy == 0
