"""Steps in the order of `jax.lax.scan` as cells, against the scan itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
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
from lejax.interop import from_scan_step


SIZES = (3, 5, 4, 6)


def step(params, carry, x):
    """A network of several layers, whose carry is a list, and whose output is not the carry."""
    new = []
    for layer, hidden in zip(params["layers"], carry, strict=True):
        x = jnp.tanh(layer["w"] @ hidden + layer["v"] @ x)
        new.append(x)
    return new, params["readout"] @ x


def draw(num_layers, dtype="float64", seed=0):
    keys = iter(jr.split(jr.key(seed), 10))

    def matrix(rows, columns):
        return jr.normal(next(keys), (rows, columns), dtype) / columns**0.5

    layers = [
        {"w": matrix(SIZES[i + 1], SIZES[i + 1]), "v": matrix(SIZES[i + 1], SIZES[i])}
        for i in range(num_layers)
    ]
    params = {"layers": layers, "readout": matrix(2, SIZES[num_layers])}
    return params, [jnp.zeros(SIZES[i + 1], dtype) for i in range(num_layers)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_states_are_those_of_the_scan(num_layers, dtype):
    params, start = draw(num_layers, dtype)
    cell = from_scan_step(step, params, initial_state=start)

    def run(state, inputs):
        def body(carry, x):
            carry, _ = step(params, carry, x)
            return carry, carry

        last, states = jax.lax.scan(body, state, inputs)
        return states, last

    check_states_and_jacobian(cell, run, draw_inputs(dtype))


def test_transformations():
    (params, start), (others, _) = draw(1), draw(1, seed=5)
    without = {"readout": jnp.zeros((2, 5))}  # the exponents do not depend on the readout
    params, others = ({"layers": p["layers"]} for p in (params, others))

    def inner(params, carry, x):
        return step(params | without, carry, x)

    first, second = (from_scan_step(inner, p, initial_state=start) for p in (params, others))
    check_transformations(first, second)
    gradient = eqx.filter_grad(penalty)(first, draw_inputs(num_steps=20)).parameters
    assert jax.tree.structure(gradient) == jax.tree.structure(params)


@pytest.mark.parametrize("kind", ["parameters", "partial", "module"])
def test_parameters_do_not_force_a_compilation(kind):
    class Module(eqx.Module):
        params: dict

        def __call__(self, carry, x):
            return step(self.params, carry, x)

    def make(seed):
        params, start = draw(2, seed=seed)
        if kind == "parameters":
            return from_scan_step(step, params, initial_state=start)
        bound = Module(params) if kind == "module" else jax.tree_util.Partial(step, params)
        return from_scan_step(bound, initial_state=start)

    inputs = draw_inputs(num_steps=20)
    made = [make(seed) for seed in range(3)]
    found = [exponents(made[0], inputs)]
    with count_compilations() as compiled:
        found += [exponents(cell, inputs) for cell in made[1:]]
    assert compiled == []
    assert np.abs(np.diff(found, axis=0)).max(axis=1).min() > 1e-3


def test_a_plain_function_is_read_anew_at_each_call():
    gain = 0.5

    def body(carry, x):
        return gain * 4 * carry * (1 - carry), carry

    cell = from_scan_step(body, initial_state=jnp.array(0.3))
    options = {"num_steps": 500, "transient": 100}
    lejax.lyapunov_spectrum(cell, cell.initial_state(), **options, throw=False)
    gain = 1.0
    spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), **options)
    np.testing.assert_allclose(spectrum.exponents, np.log(2), atol=1e-2)


def test_what_is_refused():
    params, start = draw(1)
    inputs = draw_inputs(num_steps=10)
    with pytest.raises(TypeError, match=r"step cannot be called as step\(carry, x\): missing"):
        from_scan_step(step)
    with pytest.raises(TypeError, match=r"<lambda> .* as step\(parameters, carry, x\): too many"):
        from_scan_step(lambda carry, x: (carry, x), params)
    with pytest.raises(TypeError, match=r"step must be a function"):
        from_scan_step(params)
    with pytest.raises(TypeError, match=r"from which a run starts is unknown: pass it"):
        from_scan_step(step, params).initial_state()

    def alone(carry, x):
        return carry

    with pytest.raises(TypeError, match=r"alone must return \(carry, y\), but returned float64"):
        lejax.lyapunov_spectrum(from_scan_step(alone), start[0], inputs)


def test_a_bare_step_is_sent_to_from_scan_step():
    def body(carry, x):
        return jnp.tanh(carry + x.sum()), x

    inputs = draw_inputs(num_steps=10)
    params, start = draw(1)
    with pytest.raises(TypeError, match=r"wrap it: lejax.interop.from_scan_step\(step\)\. It said"):
        lejax.lyapunov_spectrum(jax.tree_util.Partial(step, params), start, inputs)
    for state in (jnp.zeros(3), jnp.zeros(4), (jnp.zeros(3),)):
        with pytest.raises(TypeError, match=r"wrap it: lejax.interop.from_scan_step\(step\)"):
            lejax.lyapunov_spectrum(lambda u, h: body(jnp.sum(h[0]) + u, u), state, inputs)


def module_of(package, **attributes):
    """An object whose class says that it comes from this framework, which need not be installed."""

    def fail(self, *_):
        raise TypeError("not a cell")

    return type("Network", (), {"__module__": package, "__call__": fail} | attributes)()


IMPORTERS = {
    "flax.nnx.nn.recurrent": r"from_flax\(module\)",
    "flax.linen.recurrent": r"from_flax\(module\)",
    "haiku._src.recurrent": r"from_haiku\(transformed, parameters\)",
    "keras.src.layers.rnn.gru": r"from_keras\(layer\)",
    "torch.nn.modules.rnn": r"from_torch\(module.state_dict\(\)\)",
}
VERBS = {
    "lyapunov_spectrum": lambda cell: lejax.lyapunov_spectrum(cell, jnp.zeros(4), jnp.ones((9, 3))),
    "unroll": lambda cell: lejax.unroll(cell, jnp.zeros(4), jnp.ones((9, 3))),
    "jacobian": lambda cell: lejax.jacobian(cell, jnp.zeros(4), jnp.ones(3)),
    "long_run": lambda cell: lejax.run.long_run(cell, jnp.zeros(4), jnp.ones((9, 3))),
    "report": lambda cell: lejax.report(cell, jnp.zeros(4), jnp.ones((90, 3))),
    "find_fixed_points": lambda cell: lejax.orbits.find_fixed_points(cell, jnp.zeros((2, 4))),
    "two_trajectory_exponent": lambda cell: lejax.indicators.two_trajectory_exponent(
        cell, jnp.zeros(4), num_steps=9
    ),
    "ClosedLoop": lambda cell: lejax.unroll(
        lejax.cells.ClosedLoop(cell, lambda y: y[:3]), jnp.zeros(4), num_steps=9
    ),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("package", IMPORTERS)
def test_a_bare_module_is_sent_to_its_importer_by_every_verb(package, verb):
    with pytest.raises(TypeError, match=rf"lejax.interop.{IMPORTERS[package]}"):
        VERBS[verb](module_of(package))


def test_what_haiku_transforms_is_sent_to_its_importer():
    transformed = type("Transformed", (tuple,), {"__module__": "haiku._src.transform"})()
    for verb in VERBS.values():
        with pytest.raises(TypeError, match=r"got \(\): .*interop.from_haiku\(transformed, param"):
            verb(transformed)


def test_from_torch_sends_modules_to_their_importers():
    from_torch = lejax.interop.from_torch
    with pytest.raises(TypeError, match=r"got Network; pass its state_dict\(\)\."):
        from_torch(module_of("torch.nn", state_dict=lambda self: {}))
    with pytest.raises(TypeError, match=r"got Network; .* lejax.interop.from_flax\(module\)\."):
        from_torch(module_of("flax.nnx"))
    with pytest.raises(TypeError, match=r"got GRUCell, a module of Equinox: .* it is a cell as it"):
        from_torch(eqx.nn.GRUCell(3, 4, key=jr.key(0)))
