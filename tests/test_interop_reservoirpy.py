"""Arrays of reservoirpy against a loop of NumPy that follows its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lejax
from lejax.interop import from_reservoirpy


UNITS, INPUTS, STEPS = 60, 3, 200


def draw(dtype="float64", outputs=INPUTS, lr=0.3):
    rng = np.random.default_rng(0)
    arrays = {
        "W": rng.normal(size=(UNITS, UNITS)) / UNITS**0.5 * (rng.random((UNITS, UNITS)) < 0.2) * 2,
        "Win": rng.choice([-0.5, 0.5], (UNITS, INPUTS)) * (rng.random((UNITS, INPUTS)) < 0.5),
        "bias": rng.normal(size=(UNITS, 1)),
        "Wout": rng.normal(size=(UNITS, outputs)) / UNITS**0.5,
        "bias_out": rng.normal(size=outputs),
    }
    return {name: array.astype(dtype) for name, array in arrays.items()} | {"lr": lr}


def run_loop(arrays, inputs, closed=False):
    """States and outputs; a closed loop reads its own output."""
    W, Win, Wout = arrays["W"], arrays["Win"], arrays["Wout"]
    bias, lr = arrays["bias"].reshape(-1), arrays["lr"]
    x, states, outputs = np.zeros(UNITS, W.dtype), [], []
    for u in inputs:
        u = Wout.T @ x + arrays["bias_out"] if closed else u
        x = (1 - lr) * x + lr * np.tanh(W @ x + Win @ u + bias)
        states.append(x)
        outputs.append(Wout.T @ x + arrays["bias_out"])
    return np.array(states), np.array(outputs)


def draw_inputs(dtype="float64"):
    return np.random.default_rng(1).normal(size=(STEPS, INPUTS)).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("lr", [0.3, 1.0])
def test_states_and_outputs_are_those_of_the_equations(dtype, tolerance, lr):
    arrays, inputs = draw(dtype, lr=lr), draw_inputs(dtype)
    cell, readout = from_reservoirpy(arrays)
    states = lejax.unroll(cell, cell.initial_state(), inputs)
    assert states.dtype == dtype
    expected, outputs = run_loop(arrays, inputs)
    np.testing.assert_allclose(states, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(jax.vmap(readout)(states), outputs, rtol=0, atol=tolerance)


def test_the_jacobian_is_that_of_the_equations():
    arrays, inputs = draw(), draw_inputs()
    cell, _ = from_reservoirpy(arrays)
    x = run_loop(arrays, inputs[:5])[0][-1]
    rates = np.tanh(arrays["W"] @ x + arrays["Win"] @ inputs[5] + arrays["bias"][:, 0])
    expected = 0.7 * np.eye(UNITS) + 0.3 * (1 - rates**2)[:, None] * arrays["W"]
    found = lejax.jacobian(cell, jnp.asarray(x), jnp.asarray(inputs[5]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_the_closed_loop_reads_its_own_output():
    arrays = draw()
    # A loop that forgets, so that rounding does not grow over 200 steps.
    arrays["W"], arrays["Wout"] = 0.3 * arrays["W"], 0.3 * arrays["Wout"]
    cell, readout = from_reservoirpy(arrays)
    loop = lejax.cells.ClosedLoop(cell, readout)
    states = lejax.unroll(loop, loop.initial_state(), num_steps=STEPS)
    expected, _ = run_loop(arrays, np.zeros(STEPS), closed=True)
    np.testing.assert_allclose(states, expected, rtol=0, atol=1e-12)


def test_both_orientations_sparse_matrices_and_files_are_read(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    arrays = draw()
    made = from_reservoirpy(arrays)

    def assert_equal(other):
        jax.tree.map(np.testing.assert_array_equal, other, made)

    assert_equal(from_reservoirpy(arrays | {"Wout": arrays["Wout"].T}))
    assert_equal(from_reservoirpy(arrays | {"bias": arrays["bias"][:, 0]}))
    assert_equal(from_reservoirpy(arrays | {"bias_out": arrays["bias_out"][None]}))
    assert_equal(from_reservoirpy(arrays | {"lr": np.full(UNITS, 0.3)}))
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        assert_equal(from_reservoirpy(arrays | {n: kind(arrays[n]) for n in ("W", "Win", "Wout")}))
    np.savez(tmp_path / "esn.npz", **arrays)
    assert_equal(from_reservoirpy(tmp_path / "esn.npz"))


def test_what_is_absent():
    arrays = draw()
    cell, readout = from_reservoirpy({"W": arrays["W"]})
    assert readout is None
    assert cell.leak == 1
    np.testing.assert_array_equal(cell.bias, 0)
    np.testing.assert_allclose(cell(None, jnp.ones(UNITS)), np.tanh(arrays["W"].sum(axis=1)))
    cell, readout = from_reservoirpy({n: arrays[n] for n in ("W", "Win", "Wout")} | {"bias": 0})
    np.testing.assert_array_equal(readout.bias, np.zeros(INPUTS))
    single = from_reservoirpy(arrays, dtype="float32")
    assert {x.dtype.name for x in jax.tree.leaves(single) if hasattr(x, "dtype")} == {"float32"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Wfb": np.ones((UNITS, 1))}, "unknown arrays 'Wfb': those of a reservoir are 'W', 'Win'"),
        ({"W": np.ones((UNITS, 3))}, r"'W' has shape \(60, 3\), but must be \(N, N\)"),
        ({"W": np.ones(3)}, r"'W' must have 2 axes, got shape \(3,\)"),
        ({"W": np.full((UNITS, UNITS), np.nan)}, "'W' holds 3600 non-finite values"),
        ({"Win": np.ones((4, 3))}, r"'Win' has shape \(4, 3\), but 'W' of shape \(60, 60\) asks"),
        ({"Wout": np.ones((4, 3))}, r"asks for \(60, O\) or \(O, 60\)"),
        ({"bias": np.ones(4)}, r"'bias' has shape \(4,\), but must be a number or"),
        ({"bias_out": np.ones((3, 3))}, r"'bias_out' has shape \(3, 3\), but must be a number or"),
        ({"lr": np.linspace(0.1, 0.9, UNITS)}, "'lr' is from 0.1 to 0.9, but .* one leak"),
        ({"lr": 1.5}, r"'lr' must be in \(0, 1\], got 1.5"),
        ({"lr": 0}, r"'lr' must be in \(0, 1\], got 0"),
        ({"W": np.ones((UNITS, UNITS), complex)}, "'W' has dtype complex128"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        from_reservoirpy(draw() | change)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="'W' missing: there is only 'Win'"):
        from_reservoirpy({"Win": np.ones((3, 1))})
    with pytest.raises(ValueError, match="'bias_out' belongs to a readout, but 'Wout' is missing"):
        from_reservoirpy({"W": np.eye(3), "bias_out": np.ones(1)})
    with pytest.raises(TypeError, match="mapping or a path, got int; write the arrays by name"):
        from_reservoirpy(3)
