"""Modules of Flax as cells, against Flax's own loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from framework_checks import (
    check_states_and_jacobian,
    check_transformations,
    count_compilations,
    draw_inputs,
    exponents,
    penalty,
)

import lejax
from lejax.cells import Stack
from lejax.interop import from_flax


pytest.importorskip("flax")
from flax import linen, nnx


NNX = (nnx.SimpleCell, nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell)
LINEN = (
    linen.SimpleCell,
    linen.GRUCell,
    linen.MGUCell,
    linen.LSTMCell,
    linen.OptimizedLSTMCell,
)
SIZES = (3, 5, 4, 6)


class Residual(nnx.Module):
    """A module of a user: h' = h + tanh(W [u, h]) / 2 - h / gain, with an output that is not its carry."""

    def __init__(self, rngs, *, dropout=0.0):
        self.linear = nnx.Linear(7, 4, param_dtype=jnp.float64, rngs=rngs)
        self.readout = nnx.Linear(4, 2, param_dtype=jnp.float64, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.gain = 2.0

    def __call__(self, carry, x):
        new = carry - carry / self.gain + jnp.tanh(self.linear(jnp.concatenate([x, carry]))) / 2
        new = self.dropout(new)
        return new, self.readout(new)

    def initialize_carry(self, input_shape, rngs):
        return jnp.zeros(4)


def make_modules(kind, num_layers, dtype="float64", seed=0):
    dtypes = dict.fromkeys(("dtype", "param_dtype"), jnp.dtype(dtype))
    return [kind(*SIZES[i : i + 2], **dtypes, rngs=nnx.Rngs(seed + i)) for i in range(num_layers)]


def make_linen(kind, num_layers, dtype="float64", seed=0):
    """Modules and their variables."""
    found = []
    for i in range(num_layers):
        module = kind(SIZES[i + 1], param_dtype=jnp.dtype(dtype))
        x = jnp.zeros(SIZES[i], dtype)
        carry = module.initialize_carry(jr.key(0), x.shape)
        found.append((module, module.init(jr.key(seed + i), carry, x)))
    return found


def stacked(cells):
    return cells[0] if len(cells) == 1 else Stack(cells)


def run_layers(runs):
    """The loop over a stack, from the loops over its layers."""

    def run(state, inputs):
        states, new = [state] if len(runs) == 1 else state, []
        for layer, carry in zip(runs, states, strict=True):
            carry, inputs = layer(carry, inputs)
            new.append(carry)
        return inputs, new[0] if len(runs) == 1 else tuple(new)

    return run


CASES = [(kind, n, "float64") for kind in NNX for n in (1, 2, 3)]
CASES += [(kind, 2, "float32") for kind in NNX]


@pytest.mark.parametrize(("kind", "num_layers", "dtype"), CASES)
def test_nnx_cells_run_as_in_flax(kind, num_layers, dtype):
    modules = make_modules(kind, num_layers, dtype)

    def loop(module):
        # A module cannot be used inside a transformation that it comes from outside of.
        def run(carry, x):
            return nnx.RNN(nnx.clone(module), return_carry=True)(x, initial_carry=carry)

        return run

    run = run_layers([loop(module) for module in modules])
    cell = stacked([from_flax(module) for module in modules])
    check_states_and_jacobian(cell, run, draw_inputs(dtype))


LINEN_CASES = [(kind, n, "float64") for kind in LINEN for n in (1, 3)]
LINEN_CASES += [(kind, 2, "float32") for kind in LINEN]


@pytest.mark.parametrize(("kind", "num_layers", "dtype"), LINEN_CASES)
def test_linen_cells_run_as_in_flax(kind, num_layers, dtype):
    layers = make_linen(kind, num_layers, dtype)

    def loop(module, variables):
        rnn = linen.RNN(module, return_carry=True)
        variables = {"params": {"cell": variables["params"]}}
        return lambda carry, x: rnn.apply(variables, x, initial_carry=carry)

    run = run_layers([loop(*layer) for layer in layers])
    cell = stacked([from_flax(*layer) for layer in layers])
    check_states_and_jacobian(cell, run, draw_inputs(dtype))


def test_a_module_of_a_user():
    module = Residual(nnx.Rngs(0))
    cell, inputs = from_flax(module), draw_inputs()

    def run(state, inputs):
        states = []
        for x in inputs:
            state, _ = module(state, x)
            states.append(state)
        return jnp.stack(states), state

    check_states_and_jacobian(cell, run, inputs)


def test_transformations_of_nnx_modules():
    first, second = (from_flax(make_modules(nnx.OptimizedLSTMCell, 1, seed=s)[0]) for s in (0, 5))
    check_transformations(first, second)


def test_transformations_of_linen_modules():
    first, second = (from_flax(*make_linen(linen.GRUCell, 1, seed=s)[0]) for s in (0, 5))
    check_transformations(first, second)


def test_derivatives_have_the_structure_of_flax():
    (module,) = make_modules(nnx.GRUCell, 1)
    inputs = draw_inputs(num_steps=20)
    gradient = eqx.filter_grad(penalty)(from_flax(module), inputs)
    of_module = nnx.grad(lambda module: penalty(from_flax(module), inputs))(module)
    assert isinstance(gradient.parameters, nnx.State)
    assert jax.tree.structure(gradient.parameters) == jax.tree.structure(of_module)
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient.parameters, of_module)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)

    ((module, variables),) = make_linen(linen.GRUCell, 1)
    gradient = eqx.filter_grad(penalty)(from_flax(module, variables), inputs)
    of_variables = jax.grad(lambda v: penalty(from_flax(module, v), inputs))(variables)
    assert jax.tree.structure(gradient.variables) == jax.tree.structure(variables)
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient.variables, of_variables)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_twenty_steps_of_flossing_an_nnx_lstm():
    """The exponents of a cell that watches its module are those of a fresh import; nothing is compiled again."""
    module = nnx.LSTMCell(3, 6, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(module, optax.adam(2e-2), wrt=nnx.Param)
    cell, inputs = from_flax(module), draw_inputs(num_steps=40)
    slope = eqx.filter_jit(eqx.filter_value_and_grad(penalty))
    penalties, spectra = [], []

    def train():
        value, gradient = slope(cell, inputs)
        optimizer.update(module, gradient.parameters)
        watched = exponents(cell, inputs)
        fresh = exponents(from_flax(module), inputs)
        np.testing.assert_array_equal(watched, fresh)
        penalties.append(float(value))
        spectra.append(np.asarray(watched))

    train()
    with count_compilations() as compiled:
        for _ in range(19):
            train()
        assert compiled == []
        exponents(cell, inputs[:-1])
        assert compiled  # the listener does hear compilations
    copy = from_flax(nnx.clone(module))
    np.testing.assert_array_equal(exponents(copy, inputs), spectra[-1])
    assert penalties[-1] < penalties[0] / 2
    assert np.abs(np.diff(spectra, axis=0)).max(axis=1).min() > 1e-4


def test_a_copy_keeps_its_parameters_and_a_cell_watches_its_module():
    (module,) = make_modules(nnx.SimpleCell, 1)
    cell, inputs = from_flax(module), draw_inputs(num_steps=20)
    copy, of_clone = jax.tree.map(lambda x: x, cell), from_flax(nnx.clone(module))
    before = exponents(cell, inputs)
    nnx.update(module, jax.tree.map(lambda x: 0.5 * x, nnx.state(module, nnx.Param)))
    after = exponents(cell, inputs)
    assert not np.allclose(after, before, atol=1e-3)
    np.testing.assert_array_equal(after, exponents(from_flax(module), inputs))
    for kept in (copy, of_clone):
        np.testing.assert_array_equal(exponents(kept, inputs), before)


def test_attributes_that_are_no_arrays_are_watched_too():
    module, inputs = Residual(nnx.Rngs(0)), draw_inputs(num_steps=20)
    cell = from_flax(module)
    before = exponents(cell, inputs)
    module.gain = 1.5
    assert not np.allclose(exponents(cell, inputs), before, atol=1e-3)
    np.testing.assert_array_equal(exponents(cell, inputs), exponents(from_flax(module), inputs))


class Loose(nnx.Module):
    def __init__(self, result):
        self.result = result

    def __call__(self, carry, x):
        return carry if self.result == "one" else (carry, x, x)


class Noisy(linen.Module):
    @linen.compact
    def __call__(self, carry, x):
        carry = linen.Dropout(0.5, deterministic=False)(linen.Dense(4)(x) + carry)
        return carry, carry


class Normalized(linen.Module):
    @linen.compact
    def __call__(self, carry, x):
        carry = linen.BatchNorm(use_running_average=False)((linen.Dense(4)(x) + carry)[None])[0]
        return carry, carry


def test_what_is_refused():
    rngs, inputs, zeros = nnx.Rngs(0), draw_inputs(num_steps=10), jnp.zeros(4)
    cell = nnx.GRUCell(3, 4, rngs=rngs)
    with pytest.raises(TypeError, match=r"must be a module of flax.*, got GRUCell; pass an inst"):
        from_flax(nnx.GRUCell)
    with pytest.raises(TypeError, match=r"must be a module of flax.nnx or flax.linen, got dict"):
        from_flax({})
    with pytest.raises(TypeError, match=r"must be an nnx.Module or a linen.Module, got Param"):
        from_flax(nnx.Param(zeros))
    with pytest.raises(ValueError, match=r"Bidirectional reads its input from both ends"):
        from_flax(nnx.Bidirectional(nnx.RNN(cell), nnx.RNN(cell)))
    with pytest.raises(TypeError, match=r"RNN runs over a sequence, .* pass its cell"):
        from_flax(nnx.RNN(cell))
    with pytest.raises(TypeError, match=r"RNN runs over a sequence"):
        from_flax(linen.RNN(linen.GRUCell(4)), {})
    with pytest.raises(TypeError, match=r"FlaxCell failed"):
        lejax.lyapunov_spectrum(from_flax(nnx.Linear(3, 4, rngs=rngs)), zeros, inputs)
    with pytest.raises(TypeError, match=r"variables of GRUCell are missing"):
        from_flax(linen.GRUCell(4))
    with pytest.raises(TypeError, match=r"GRUCell is an nnx.Module, which has its own variables"):
        from_flax(cell, {})
    with pytest.raises(TypeError, match=r"Loose must return \(carry, y\), but returned float64"):
        lejax.lyapunov_spectrum(from_flax(Loose("one")), zeros, inputs)
    with pytest.raises(TypeError, match=r"Loose must return \(carry, y\), but returned \("):
        lejax.lyapunov_spectrum(from_flax(Loose("three")), zeros, inputs)
    with pytest.raises(TypeError, match=r"Loose has no method initialize_carry"):
        from_flax(Loose("one")).initial_state()
    dropout = Residual(rngs, dropout=0.5)
    with pytest.raises(TypeError, match=r"a step of Residual changes .*count.*, such as dropout"):
        lejax.lyapunov_spectrum(from_flax(dropout), zeros, inputs)
    count = int(dropout.dropout.rngs.count[...])
    with pytest.raises(TypeError, match=r"a step of Residual changes .*count"):
        from_flax(dropout)(inputs[0], zeros)
    assert int(dropout.dropout.rngs.count[...]) == count
    dropout.eval()
    assert exponents(from_flax(dropout), inputs).shape == (4,)
    variables = Noisy().init({"params": jr.key(0), "dropout": jr.key(1)}, zeros, inputs[0])
    with pytest.raises(TypeError, match=r"Noisy draws random numbers, and a step has no key"):
        lejax.lyapunov_spectrum(from_flax(Noisy(), variables), zeros, inputs)
    variables = Normalized().init(jr.key(0), zeros, inputs[0])
    with pytest.raises(TypeError, match=r"a step of Normalized changes variables that its carry"):
        lejax.lyapunov_spectrum(from_flax(Normalized(), variables), zeros, inputs)


def test_a_bare_module_is_sent_to_from_flax():
    module, inputs = nnx.LSTMCell(3, 4, param_dtype=float, rngs=nnx.Rngs(0)), draw_inputs()
    for state in (jnp.zeros(4), (jnp.zeros(4), jnp.zeros(4)), jnp.zeros(3)):
        with pytest.raises(
            TypeError, match=r"make a cell of it, lejax.interop.from_flax\(module\)"
        ):
            lejax.lyapunov_spectrum(module, state, inputs)


def test_an_old_flax_is_named(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.10.7")
    with pytest.raises(RuntimeError, match=r"needs Flax 0.12 or later, but 0.10.7 is installed"):
        from_flax(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0)))
