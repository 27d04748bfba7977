"""Every cell that draws its weights can be made from them, by name."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from lejax import cells


KEY = jr.key(0)
DRAWN = {
    "ALRNN": lambda key: cells.ALRNN(4, 2, 3, key=key),
    "ClippedShallowPLRNN": lambda key: cells.ClippedShallowPLRNN(4, 5, 3, key=key),
    "DeltaProductCell": lambda key: cells.DeltaProductCell(3, 4, 2, 2, use_gate=True, key=key),
    "DendriticPLRNN": lambda key: cells.DendriticPLRNN(4, 2, 3, key=key),
    "EchoStateCell": lambda key: cells.EchoStateCell(3, 4, leak=0.5, key=key),
    "GRUCell": lambda key: cells.GRUCell(3, 4, key=key),
    "GatedLinearAttentionCell": lambda key: cells.GatedLinearAttentionCell(3, 4, 2, key=key),
    "LRUCell": lambda key: cells.LRUCell(3, 4, key=key),
    "LSTMCell": lambda key: cells.LSTMCell(3, 4, key=key),
    "LeakyRNNCell": lambda key: cells.LeakyRNNCell(3, 4, True, jax.nn.relu, dt=0.1, key=key),
    "LowRankRNNCell": lambda key: cells.LowRankRNNCell(3, 4, 2, True, dt=0.1, tau=2.0, key=key),
    "LowRankReLURNN": lambda key: cells.LowRankReLURNN(2, 5, 3, key=key),
    "MLSTMCell": lambda key: cells.MLSTMCell(3, 2, 4, 3, key=key),
    "Mamba2Cell": lambda key: cells.Mamba2Cell(3, 2, 2, key=key),
    "MambaCell": lambda key: cells.MambaCell(3, 2, key=key),
    "MeanCenteredPLRNN": lambda key: cells.MeanCenteredPLRNN(4, 3, key=key),
    "PLRNN": lambda key: cells.PLRNN(4, 3, key=key),
    "ProjectedLSTMCell": lambda key: cells.ProjectedLSTMCell(3, 4, 2, key=key),
    "RNNCell": lambda key: cells.RNNCell(3, 4, activation=jax.nn.relu, key=key),
    "RWKV7Cell": lambda key: cells.RWKV7Cell(6, 2, 3, key=key),
    "S4DCell": lambda key: cells.S4DCell(3, 2, cells.Bilinear(), key=key),
    "S6Cell": lambda key: cells.S6Cell(3, 2, cells.Euler(), key=key),
    "SLSTMCell": lambda key: cells.SLSTMCell(3, 4, 2, key=key),
    "ShallowPLRNN": lambda key: cells.ShallowPLRNN(4, 5, 3, key=key),
}
# Wrappers and readouts take what they hold; the matrices of HiPPO follow from its settings.
EXEMPT = {"ClosedLoop", "FeedThrough", "HippoCell", "NoisyCell", "Stack", "LinearReadout"}

FREE = {
    ("GatedLinearAttentionCell", "weight_v"),
    ("Mamba2Cell", "kernel"),
    ("MambaCell", "kernel"),
}  # a first axis no other weight has


def fields_of(cell):
    return {name: getattr(cell, name) for name in inspect.signature(cell.from_weights).parameters}


def test_every_cell_is_here():
    names = {n for n in cells.__all__ if inspect.isclass(getattr(cells, n))}
    names -= {n for n in names if issubclass(getattr(cells, n), cells.Discretization)}
    assert names == DRAWN.keys() | EXEMPT
    for name in DRAWN:
        kinds = [
            p.kind for p in inspect.signature(getattr(cells, name).from_weights).parameters.values()
        ]
        assert set(kinds) == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", DRAWN)
def test_the_fields_of_a_cell_make_the_same_cell(name):
    cell = DRAWN[name](KEY)
    made = cell.from_weights(**fields_of(cell))
    assert type(made) is type(cell)
    assert eqx.tree_equal(made, cell)
    assert jax.tree.structure(made) == jax.tree.structure(cell)


@pytest.mark.parametrize("name", DRAWN)
def test_one_array_of_another_shape_is_refused_by_name(name):
    cell = DRAWN[name](KEY)
    fields = fields_of(cell)
    arrays = [n for n, x in fields.items() if eqx.is_array(x) and x.ndim]
    for bad in arrays:
        shape = fields[bad].shape
        longer = jnp.ones((shape[0] + 1, *shape[1:]))
        if (name, bad) not in FREE:
            with pytest.raises(ValueError, match=r"has shape \(.*, but"):
                cell.from_weights(**fields | {bad: longer})
        with pytest.raises(
            ValueError, match=rf"{bad} must have {len(shape)} (axis|axes), got shape"
        ):
            cell.from_weights(**fields | {bad: jnp.ones((*shape, 1))})
        with pytest.raises(TypeError, match=rf"{bad} must be real, got complex128"):
            cell.from_weights(**fields | {bad: fields[bad] + 1j})


def test_both_shapes_are_named():
    recurrent, memory = (fields_of(DRAWN[n](KEY)) for n in ("LRUCell", "DeltaProductCell"))
    with pytest.raises(
        ValueError,
        match=r"weight_ih has shape \(9, 2\), but weight_hh of shape \(12, 4\) asks for \(12, 2\)",
    ):
        cells.GRUCell.from_weights(weight_hh=jnp.ones((12, 4)), weight_ih=jnp.ones((9, 2)))
    with pytest.raises(
        ValueError, match=r"weight_hh has shape \(12, 5\), but .* must be \(3 H, H\)"
    ):
        cells.GRUCell.from_weights(weight_hh=jnp.ones((12, 5)))
    with pytest.raises(
        ValueError, match=r"B has shape \(4, 3, 1\), but its shape must be \(N, I, 2\)"
    ):
        cells.LRUCell.from_weights(**recurrent | {"B": jnp.ones((4, 3, 1))})
    with pytest.raises(ValueError, match="bias_n is a part of the form with reset_after=True only"):
        cells.GRUCell.from_weights(
            weight_hh=jnp.ones((12, 4)), bias_n=jnp.ones(4), reset_after=False
        )
    with pytest.raises(ValueError, match="weight_gate and bias_gate must be given together"):
        cells.DeltaProductCell.from_weights(**memory | {"bias_gate": None})


def test_what_may_be_left_out():
    cell = cells.LSTMCell.from_weights(weight_hh=np.zeros((8, 2), np.float32))
    assert cell.weight_ih.shape == (8, 0)
    assert cell.bias is None
    assert {leaf.dtype for leaf in cell(None, cell.initial_state())} == {jnp.dtype("float32")}
    reservoir = cells.EchoStateCell.from_weights(weight_hh=[[0.0, 1.0], [1.0, 0.0]])  # pyright: ignore
    np.testing.assert_array_equal(reservoir.bias, [0, 0])
    assert reservoir.leak == 1


@pytest.mark.parametrize("name", ["RNNCell", "LeakyRNNCell", "MambaCell", "PLRNN"])
def test_jit_vmap_and_grad(name):
    members = eqx.filter_vmap(DRAWN[name])(jr.split(KEY, 3))
    alone = DRAWN[name](jr.split(KEY, 3)[1])
    input, state = jnp.ones(3), alone.initial_state()

    def total(cell):
        made = cell.from_weights(**fields_of(cell))
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(made(input, state)))

    batch = eqx.filter_jit(eqx.filter_vmap(total))(members)
    np.testing.assert_allclose(batch[1], total(alone), rtol=1e-12)
    gradients = eqx.filter_grad(total)(alone)
    direct = eqx.filter_grad(
        lambda cell: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(cell(input, state)))
    )(alone)
    jax.tree.map(np.testing.assert_array_equal, gradients, direct)


def test_weights_of_several_dtypes_become_those_of_the_widest():
    cell = cells.RNNCell.from_weights(
        weight_hh=np.eye(2, dtype=np.float32), weight_ih=np.ones((2, 1)), bias=np.array([1, 2])
    )
    leaves = jax.tree.leaves(eqx.filter(cell, eqx.is_array))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}
    assert cells.RNNCell.from_weights(weight_hh=np.eye(2, dtype=int)).weight_hh.dtype == float
