"""Regions of piecewise-linear networks: counts of hyperplane arrangements, and a state in each region."""

from math import comb

import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax import cells
from lejax.plrnn import find_regions


def draw(kind, size, hidden=None, seed=0, dtype=float, **others):
    """A network of normal weights, drawn by NumPy because JAX compiles a program for each shape."""
    random = np.random.default_rng(seed)
    shallow = {"W1": (size, hidden), "W2": (hidden, size), "h1": size, "h2": hidden}
    shapes = {
        cells.ShallowPLRNN: shallow,
        cells.ClippedShallowPLRNN: shallow,
        cells.DendriticPLRNN: {
            "W": (size, size),
            "alpha": hidden,
            "theta": (size, hidden),
            "h": size,
        },
        cells.LowRankReLURNN: {"n": (size, hidden), "m": (hidden, size), "b": hidden},
    }
    plain = {"W": (size, size), "h": size}
    arrays = shapes.get(kind, plain)
    if kind is not cells.LowRankReLURNN:
        others["a"] = np.full(size, 0.5, dtype)
    weights = {name: random.normal(size=shape).astype(dtype) for name, shape in arrays.items()}
    return kind.from_weights(**weights, **others)


def sampled(cell, num_states=20_000, scale=3.0):
    net = lejax.piecewise_linear(cell)
    states = scale * np.random.default_rng(0).standard_t(2, (num_states, net.h1.size))
    return {row.tobytes() for row in states @ np.asarray(net.W2).T + np.asarray(net.h2) > 0}


@pytest.mark.parametrize(("size", "planes"), [(1, 6), (2, 10), (2, 60), (3, 15), (4, 9), (5, 4)])
def test_generic_arrangement(size, planes):
    cell = draw(cells.ShallowPLRNN, size, planes)
    regions = np.asarray(find_regions(cell))
    assert len(regions) == sum(comb(planes, i) for i in range(size + 1))
    assert len(np.unique(regions, axis=0)) == len(regions)
    assert sampled(cell) <= {row.tobytes() for row in regions}


@pytest.mark.parametrize(("size", "branches"), [(1, 4), (2, 5), (3, 3)])
def test_dendritic_network_is_a_grid(size, branches):
    cell = draw(cells.DendriticPLRNN, size, branches)
    regions = find_regions(cell)
    assert len(regions) == (branches + 1) ** size
    # Along each axis the units of its branches switch on one after the other.
    bits = np.asarray(regions).reshape(-1, branches, size)
    order = np.argsort(np.asarray(cell.theta), axis=1)
    for unit in range(size):
        sorted_bits = bits[:, order[unit], unit].astype(int)
        assert np.all(np.diff(sorted_bits, axis=1) <= 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("size", [2, 4, 7])
def test_mean_centered_network_lacks_two_regions(size, dtype):
    regions = find_regions(draw(cells.MeanCenteredPLRNN, size, dtype=dtype))
    assert len(regions) == 2**size - 2
    assert set(np.asarray(regions).sum(axis=1)) == set(range(1, size))


def test_independent_hyperplanes_have_all_words():
    for cell in (draw(cells.ALRNN, 20, num_relu=6), draw(cells.PLRNN, 6)):
        regions = np.asarray(find_regions(cell))
        np.testing.assert_array_equal(regions @ (1 << np.arange(6)[::-1]), np.arange(64))


@pytest.mark.parametrize("size", [1, 2])
def test_parallel_pairs(size):
    """A clipped network has a parallel hyperplane beside each hyperplane through 0."""
    pairs = 5
    cell = draw(cells.ClippedShallowPLRNN, size, pairs)
    regions = {row.tobytes() for row in np.asarray(find_regions(cell))}
    assert sampled(cell) <= regions
    if size == 1:
        assert len(regions) == pairs + 2  # all hyperplanes through 0 are the same point
    elif size == 2:
        # 1 + lines + crossings, where the crossing of n lines at 0 counts n - 1 times
        assert len(regions) == 1 + 2 * pairs + (pairs - 1) + pairs * (pairs - 1) + comb(pairs, 2)


def test_coinciding_and_empty_hyperplanes():
    W2 = jnp.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    h2 = jnp.array([-1.0, 2.0, 1.0, -1.0, -3.0])
    net = lejax.PiecewiseLinearMap(jnp.eye(2), jnp.zeros((2, 5)), W2, jnp.zeros(2), h2)
    np.testing.assert_array_equal(find_regions(net).astype(int), [[0, 1, 1, 0, 0], [1, 0, 1, 0, 1]])
    linear = lejax.PiecewiseLinearMap(
        jnp.eye(2), jnp.zeros((2, 0)), jnp.zeros((0, 2)), jnp.zeros(2), jnp.zeros(0)
    )
    assert find_regions(linear).shape == (1, 0)


def test_low_rank_network_has_few_regions_of_many_units():
    cell = draw(cells.LowRankReLURNN, 2, 100, q=0.1)
    assert len(find_regions(cell)) == 1 + 100 + comb(100, 2)


def test_too_many_regions_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="at least 1048576 regions, and max_regions is 65536"):
        find_regions(draw(cells.ALRNN, 20, num_relu=20))
    with pytest.raises(ValueError, match=r"at least \d+ regions, and max_regions is 100"):
        find_regions(draw(cells.ShallowPLRNN, 3, 30), max_regions=100)
