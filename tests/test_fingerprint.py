"""Fingerprints of programs differ between programs and agree between processes."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax._core.fingerprint import fingerprint_array, fingerprint_program, fingerprint_text


def network(activation=jnp.tanh, size=3, seed=0):
    return lejax.cells.RNNCell(2, size, activation=activation, key=jr.key(seed))


def mark_of(cell, size=3):
    return fingerprint_program(cell, jnp.ones(2), jnp.zeros(size))


def test_the_fingerprint_does_not_depend_on_the_weights():
    assert mark_of(network()) == mark_of(network(seed=1)) == mark_of(network())
    shapes = jax.ShapeDtypeStruct((2,), float), jax.ShapeDtypeStruct((3,), float)
    assert mark_of(network()) == fingerprint_program(network(), *shapes)
    peers = [network(jax.nn.relu), network(jax.nn.gelu), network(jnp.sin)]
    marks = {mark_of(network()), *map(mark_of, peers), mark_of(network(size=4), 4)}
    assert len(marks) == 5
    single = jax.tree.map(lambda x: x.astype(jnp.float32), network())
    assert mark_of(single) not in marks


@pytest.mark.parametrize("large", [False, True])
def test_the_fingerprint_depends_on_constants_at_any_depth(large):
    def wrap(constant):
        inner = jax.jit(lambda x: x * constant)
        loop = lambda x: jax.lax.scan(lambda x, _: (inner(x), None), x, length=2)[0]
        return lambda x: jax.lax.cond(x[0] > 0, loop, jnp.sin, x)

    values = np.linspace(0.0, 1.0, 3_000_000 if large else 5)
    changed = values.copy()
    changed[-2] += 1e-9
    constants = (values, values.copy(), changed)
    marks = [fingerprint_program(wrap(c), jnp.ones(values.shape)) for c in constants]
    assert marks[0] == marks[1] != marks[2]


def test_the_fingerprint_depends_on_globals_of_the_function():
    scope = {"jnp": jnp, "table": np.arange(9.0), "number": 0.5}
    exec("def step(input, x):\n    return number * jnp.sin(x) + table", scope)
    marks = [fingerprint_program(scope["step"], None, jnp.ones(9))]
    scope["table"] = scope["table"] + 1
    marks.append(fingerprint_program(scope["step"], None, jnp.ones(9)))
    scope["number"] = 0.25
    marks.append(fingerprint_program(scope["step"], None, jnp.ones(9)))
    assert len(set(marks)) == 3


SCRIPT = """
import jax, jax.numpy as jnp, jax.random as jr
import lejax
from lejax._core.fingerprint import fingerprint_program
cell = lejax.cells.RNNCell(2, 3, activation=jax.nn.relu, key=jr.key(0))
P = jax.sharding.PartitionSpec
kinds = 3 * (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((1, 1, 1), ("x", "y", "zebra"), devices=jax.devices()[:1], axis_types=kinds)
specs = {"in_specs": P("x", "y"), "out_specs": P("x", "y")}
shared = jax.shard_map(lambda x: jax.nn.gelu(x), mesh=mesh, **specs)
step = lambda input, x: jax.jvp(lambda x: cell(input, x), (x,), (x,))
print(fingerprint_program(step, jnp.ones(2), jnp.ones(3)), fingerprint_program(shared, jnp.ones((2, 2))))
"""


def test_all_processes_give_the_same_fingerprint():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", "pad = [0] * 9**" + seed + SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        ).stdout
        for seed in ("1", "5")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].split()) == 2


def test_fingerprints_of_arrays_and_text():
    rows = np.arange(3_000_000.0).reshape(-1, 3)
    assert fingerprint_array(rows) == fingerprint_array(jnp.asarray(rows))
    assert fingerprint_array(rows) == fingerprint_array(np.asfortranarray(rows))
    assert fingerprint_array(rows) != fingerprint_array(rows.reshape(3, -1))
    assert fingerprint_array(np.zeros(2)) != fingerprint_array(np.zeros(4, np.float32))
    assert fingerprint_array(jr.key(0)) != fingerprint_array(jr.key(1))
    assert fingerprint_text("a") == fingerprint_text("a") != fingerprint_text("b")
