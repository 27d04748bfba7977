"""Blocks that a cell does not declare: dependencies between the numbers of a state, and exponents of components."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax import DeclaredBlocks, SequentialQR
from lejax._engine.components import FoundBlocks, search_components
from lejax._engine.dependencies import dependencies
from lejax._engine.push import make_push
from lejax._engine.strong_components import merge_small, strongly_connected
from lejax.cells import Stack


WEIGHTS = jr.normal(jr.key(0), (6, 6))


def dependencies_of(function, size=6):
    labels = np.arange(size)
    return dependencies(lambda _, x: function(x), (), jnp.zeros(size), labels, size)


def scanned(x):
    return jax.lax.scan(lambda c, y: (jnp.tanh(c) + x[0], c[1] * y), x[:3], x[3:])


STEPS = {
    "identity": (lambda x: x, np.eye(6)),
    "elementwise": (lambda x: jnp.tanh(x) * 2 + x**2, np.eye(6)),
    "shift": (lambda x: jnp.roll(x, 1), np.roll(np.eye(6), 1, axis=0)),
    "reverse": (lambda x: x[::-1], np.eye(6)[::-1]),
    "indices": (lambda x: x[jnp.array([2, -1, 0])], np.eye(6)[[2, 5, 0]]),
    "set": (lambda x: x.at[1].set(jnp.sin(x[4])), np.eye(6)[[0, 4, 2, 3, 4, 5]]),
    "add": (lambda x: x.at[jnp.array([1, 1])].add(x[3:5]), None),
    "rows of a product": (
        lambda x: (x.reshape(2, 3) @ WEIGHTS[:3, :3]).ravel(),
        np.kron(np.eye(2), np.ones((3, 3))),
    ),
    "columns of a product": (
        lambda x: (WEIGHTS[:2, :2] @ x.reshape(2, 3)).ravel(),
        np.kron(np.ones((2, 2)), np.eye(3)),
    ),
    "a weight that is zero": (lambda x: jnp.zeros((6, 6)) @ x, np.ones((6, 6))),
    "no derivative": (lambda x: jnp.where(x > 0, 1.0, 2.0) + jax.lax.stop_gradient(x), np.zeros((6, 6))),
    "sums": (lambda x: x.reshape(3, 2).sum(axis=1), np.kron(np.eye(3), np.ones((1, 2)))),
    "batched product": (
        lambda x: jnp.einsum("bij,bj->bi", WEIGHTS[:, :4].reshape(6, 2, 2)[:3], x.reshape(3, 2)).ravel(),
        np.kron(np.eye(3), np.ones((2, 2))),
    ),
    "inside a function": (jax.jit(lambda x: jax.checkpoint(jnp.exp)(x)), np.eye(6)),
    "a branch": (lambda x: jax.lax.cond(x[0] > 0, lambda x: x, lambda x: x[::-1], x), np.eye(6) + np.eye(6)[::-1]),
    "a loop": (lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y.at[1:].add(y[:-1]), x), np.tril(np.ones((6, 6)))),
    "a scan": (lambda x: jnp.concatenate(scanned(x)), None),
    "padding": (lambda x: jnp.pad(x, (1, 2))[:6], np.eye(6, k=-1)),
    "stack": (lambda x: jnp.stack([x[1], x[0] * x[1]]), np.array([[0, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]])),
    "sorted": (jnp.sort, None),
    "unknown": (lambda x: jnp.linalg.solve(WEIGHTS, x), np.ones((6, 6))),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_dependencies_of_a_step(name):
    function, exact = STEPS[name]
    found = dependencies_of(function)
    if exact is not None:
        np.testing.assert_array_equal(found, np.asarray(exact) > 0)
    for seed in range(3):  # every nonzero entry of a Jacobian must be found
        jacobian = jax.jacfwd(function)(jr.normal(jr.key(seed), (6,)))
        assert np.all(found | (np.asarray(jacobian).reshape(found.shape) == 0))


def permuted(x, times):
    """Index `x` by the result of a chain of equations, each of which uses the one before it twice."""
    indices = jnp.arange(x.size)
    for _ in range(times):
        indices = (2 * indices - indices) % x.size
    return x[indices]


def test_indices_are_computed_once(monkeypatch):
    counts = []
    evaluate = lejax._engine.dependencies._evaluate
    monkeypatch.setattr(
        lejax._engine.dependencies, "_evaluate", lambda *args: counts.append(0) or evaluate(*args)
    )
    assert np.array_equal(dependencies_of(lambda x: permuted(x, 12)), np.eye(6))
    assert len(counts) < 200


@pytest.mark.parametrize(
    "loop",
    [
        jax.lax.fori_loop,
        lambda *args: jax.lax.while_loop(
            lambda c: c[0] < args[1], lambda c: (c[0] + 1, args[2](c[0], c[1])), (args[0], args[3])
        )[1],
    ],
)
def test_loops_that_spread_dependencies_slowly_count_as_dense(loop, monkeypatch):
    rounds = []

    def body(_, x):
        return x.at[1:].add(x[:-1])

    follow = lejax._engine.dependency_rules.scatter_add
    monkeypatch.setitem(
        lejax._engine.dependencies._RULES,
        "scatter-add",
        lambda *args: rounds.append(0) or follow(*args),
    )
    assert np.all(dependencies_of(lambda x: loop(0, 9, body, x), 90))
    assert len(rounds) < 40


def test_indices_from_a_long_chain_count_as_dense():
    assert np.all(dependencies_of(lambda x: permuted(x, 400)))


def test_dependencies_follow_custom_derivatives_instead_of_values():
    @jax.custom_jvp
    def spike(x):
        return (x > 0).astype(x.dtype)

    spike.defjvp(lambda primals, tangents: (spike(*primals), tangents[0] / (1 + primals[0] ** 2)))
    np.testing.assert_array_equal(dependencies_of(lambda x: spike(x[::-1])), np.eye(6)[::-1] > 0)


def test_components_follow_the_components_that_they_read():
    reads = np.zeros((7, 7), bool)
    reads[[0, 1, 2, 3, 4, 5, 6, 0], [1, 0, 2, 4, 3, 0, 5, 3]] = True
    groups = [group.tolist() for group in strongly_connected(reads)]
    assert groups == [[2], [3, 4], [0, 1], [5], [6]]
    many = [np.array([2 * i, 2 * i + 1]) for i in range(20)]
    merged = merge_small(many, np.ones(40, int))
    assert len(merged) == 8
    np.testing.assert_array_equal(np.concatenate(merged), np.arange(40))


class Layers(eqx.Module):
    """Two layers, with the state in one array, or in several arrays that also hold outputs which no step reads."""

    first: eqx.nn.GRUCell
    second: eqx.nn.GRUCell

    def __call__(self, input, state):
        if isinstance(state, tuple):
            first = self.first(input, state[0])
            second = self.second(first, state[1])
            return first, second, jnp.sum(second)[None], 0.5 * state[3] + first[0]
        first, second = self.first(input, state[1::2]), state[:6:2]
        second = self.second(first, second)
        return jnp.zeros(6).at[1::2].set(first).at[::2].set(second)


LAYERS = Layers(eqx.nn.GRUCell(2, 3, key=jr.key(1)), eqx.nn.GRUCell(3, 3, key=jr.key(2)))
STACK = Stack([LAYERS.first, LAYERS.second])
INPUTS = 2 * jr.normal(jr.key(3), (300, 2))
RUN = {"transient": 50, "method": SequentialQR(every=1)}


def test_layers_in_one_module_have_the_exponents_of_a_stack():
    exact = lejax.lyapunov_spectrum(STACK, (jnp.zeros(3), jnp.zeros(3)), INPUTS, **RUN)
    parts = jnp.zeros(3), jnp.zeros(3), jnp.zeros(1), jnp.zeros(2)
    found = lejax.lyapunov_spectrum(LAYERS, parts, INPUTS, **RUN)
    np.testing.assert_allclose(found.exponents[-1], -np.inf)
    rest = np.sort([*exact.exponents, *2 * [np.log(0.5)]])[::-1]
    # The two runs start from different random frames.
    np.testing.assert_allclose(found.exponents[:-1], rest, atol=2e-3)
    assert np.isclose(found.exponents, np.log(0.5), atol=1e-12).sum() == 2
    assert found.result == lejax.RESULTS.successful
    # The components interleave in the state; a second run continues with their frame, in the coordinates of the state.
    state = jnp.zeros(6)
    mixed = lejax.lyapunov_spectrum(LAYERS, state, INPUTS, **RUN)
    np.testing.assert_allclose(mixed.exponents, exact.exponents, atol=2e-3)
    support = np.abs(mixed.frame) > 0
    assert np.all(support[::2].any(axis=0) != support[1::2].any(axis=0))
    more = {"method": RUN["method"]}
    single = lejax.lyapunov_spectrum(LAYERS, state, INPUTS[:200], **more)
    first = lejax.lyapunov_spectrum(LAYERS, state, INPUTS[:100], **more)
    second = lejax.lyapunov_spectrum(
        LAYERS, first.state, INPUTS[100:200], frame=first.frame, **more
    )
    both = lejax.combine(first, second)
    np.testing.assert_allclose(np.sort(both.exponents), np.sort(single.exponents), atol=1e-10)


def test_gradients_agree_with_those_of_one_block():
    def total(layers, blocks):
        method = SequentialQR(every=1, blocks=blocks)
        run = lejax.lyapunov_spectrum(layers, jnp.zeros(6), INPUTS[:40], method=method)
        return jnp.sum(run.exponents)  # the log determinant, which does not depend on the frame

    found, dense = (
        eqx.filter_grad(total)(LAYERS, blocks) for blocks in (FoundBlocks(), DeclaredBlocks())
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(dense), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


class Pair(eqx.Module):
    """One number drives another; their finite-time exponents are nearly equal and fluctuate."""

    def __call__(self, input, state):
        x, y = state
        return jnp.stack([jnp.exp(input[0]) * x, jnp.exp(input[1]) * y + x])


@pytest.mark.parametrize("blocks", [FoundBlocks(), DeclaredBlocks()])
@pytest.mark.parametrize("seed", [1, 3])
def test_a_direction_far_below_the_leading_one_may_lead_again(blocks, seed):
    rates = 1.5 * jr.normal(jr.key(seed), (20_000, 2)) - jnp.array([0.03, 0.0])
    run = lejax.lyapunov_spectrum(Pair(), jnp.zeros(2), rates, method=SequentialQR(blocks=blocks))
    # With one frame the growth is the largest over all paths through the triangle, up to a logarithm.
    first, second = np.cumsum(np.asarray(rates), axis=0).T
    best = max(first[-1], np.max(first - second) + second[-1])
    exact = (
        best / len(rates) if isinstance(blocks, DeclaredBlocks) else np.mean(rates, axis=0).max()
    )
    tolerance = 1e-3 if isinstance(blocks, DeclaredBlocks) else 1e-12
    np.testing.assert_allclose(run.exponents[0], exact, atol=tolerance)
    np.testing.assert_allclose(np.sum(run.exponents), np.sum(np.mean(rates, axis=0)), atol=1e-9)
    assert run.result == lejax.RESULTS.successful


def test_no_blocks_are_found_if_there_is_one_component():
    for cell, state in (
        (eqx.nn.GRUCell(2, 4, key=jr.key(0)), jnp.zeros(4)),
        (eqx.nn.LSTMCell(2, 4, key=jr.key(0)), (jnp.zeros(4), jnp.zeros(4))),
        (lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01), jnp.ones(3)),
    ):
        assert (
            search_components(
                make_push(cell, state), state, jnp.zeros(2) if state is not None else None, 3
            )
            is None
        )


def test_ascending_exponents_have_a_status():
    spectrum = lejax.lyapunov_spectrum(lejax.systems.Cat(), jnp.array([0.1, 0.2]), num_steps=200)
    ascending = eqx.tree_at(
        lambda x: (x.block_exponents, x.exponents),
        spectrum,
        (spectrum.block_exponents[:, ::-1], spectrum.exponents[::-1]),
    )
    assert lejax.combine(spectrum, spectrum).result == lejax.RESULTS.successful
    assert lejax.combine(ascending, ascending).result == lejax.RESULTS.exponents_ascend


def test_a_lost_leading_direction_has_a_status(monkeypatch):
    # Plain Householder reflections round small numbers of the first column away, among them a later leading direction.
    factorize = lejax.Householder.factorize

    def factorize_carelessly(self, frame):
        factors = factorize(self, frame)
        q, r = jnp.linalg.qr(frame / factors.scale)
        return factors._replace(columns=q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0))

    monkeypatch.setattr(lejax.Householder, "factorize", factorize_carelessly)
    jax.clear_caches()
    rates = jr.normal(jr.key(3), (100_000, 2)) - jnp.array([0.0, 0.05])
    method = SequentialQR(every=20, orthonormalizer=lejax.Householder(), blocks=DeclaredBlocks())
    with pytest.raises(RuntimeError, match="Exponents ascend by more than four standard errors"):
        lejax.lyapunov_spectrum(Pair(), jnp.zeros(2), rates, method=method)
    long = lejax.run.long_run(
        Pair(), jnp.zeros(2), rates, method=method, progress=False, throw=False
    )
    assert long.result == lejax.RESULTS.exponents_ascend
    jax.clear_caches()
