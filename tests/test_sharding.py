"""Batches that are sharded over a device mesh: 1, 2 and 8 devices, explicit and automatic axes, two processes."""

import functools as ft
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lejax
from lejax._core.mesh_axes import call_with_automatic_axes


HERE = Path(__file__).parent
WAYS = ("explicit", "auto", "shard_map")
BATCH = PartitionSpec("batch")
WEIGHTS = jr.normal(jr.key(0), (4, 4))
STARTS = np.asarray(jr.normal(jr.key(1), (4, 4)))


def start(script, *arguments, devices, precision="float64"):
    """Start a script of this folder in a process of its own, with so many devices."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        flags += " --xla_cpu_use_fusion_emitters=false"
    settings = {
        "XLA_FLAGS": flags,
        "PJRT_NPROC": "4",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(int(precision == "float64")),
    }
    return subprocess.Popen(
        [sys.executable, HERE / script, *map(str, arguments)],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes, timeout=1200):
    """What the processes printed; all of it is shown if one of them fails."""
    try:
        printed = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(printed)
    return printed


def compare(devices, names, *part, ways=WAYS, precision="float64"):
    """Compare verbs on meshes with a plain loop, in a process with 8 devices."""
    arguments = ",".join(map(str, devices)), ",".join(ways), ",".join(names), *part
    (printed,) = finish(start("sharded_verbs.py", *arguments, devices=8, precision=precision))
    report = json.loads(printed[printed.index("{") :])
    assert report["comparisons"] > 0
    assert report["faults"] == {}


def test_one_two_and_eight_devices_agree():
    compare((1, 2, 8), ("lyapunov_spectrum.every",), ways=("explicit", "shard_map"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(
    "names",
    [
        # 40 columns of 40 numbers; frames of 1024 numbers and more than 128 steps follow.
        ("lyapunov_spectrum", "lyapunov_spectrum.parallel", "lyapunov_spectrum.columns"),
        ("lyapunov_spectrum.long", "lyapunov_spectrum.lstm", "lyapunov_spectrum.long_every"),
        ("covariant_lyapunov_vectors", "training.flossing_penalty.wide"),
        ("mean", "mean wide", "mean long"),
        ("batch_penalty", "batch_penalty wide", "batch_penalty long"),
    ],
    ids=lambda names: names[0],
)
def test_one_two_and_eight_devices_agree_at_all_sizes(names, precision):
    compare((1, 2, 8), names, precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_every_verb_agrees_on_explicit_axes(part):
    compare((8,), ("all",), part, 6, ways=("explicit",))


def spectrum(method=None, matrix=WEIGHTS):
    method = lejax.SequentialQR(every=2) if method is None else method
    cell = lejax.cells.RNNCell.from_weights(weight_hh=matrix)
    return lambda x: lejax.lyapunov_spectrum(cell, x, num_steps=20, method=method).exponents


def sharded(way):
    """A mesh and the starts, sharded over it."""
    kind = AxisType.Explicit if way == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((2,), ("batch",), (kind,))
    return mesh, jax.device_put(STARTS, NamedSharding(mesh, BATCH))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("orthonormalizer", "has_guard"),
    [(lejax.Householder(), False), (lejax.GramSchmidt(), True), (lejax.Cholesky(), True)],
)
def test_devices_exchange_no_array_where_the_interval_is_fixed(way, orthonormalizer, has_guard):
    method = lejax.SequentialQR(every=2, orthonormalizer=orthonormalizer)
    mesh, starts = sharded(way)
    mapped = jax.vmap(spectrum(method))
    if way == "shard_map":
        mapped = jax.shard_map(mapped, mesh=mesh, in_specs=BATCH, out_specs=BATCH)
    text = jax.jit(mapped).lower(starts).compile().as_text()
    exchanged = re.findall(
        r"= (\S+) (?:all-reduce|all-gather|collective-permute|all-to-all|reduce-scatter)", text
    )
    # A guard takes one branch for the complete batch: the devices agree on one boolean.
    allowed = {"pred[]"} if has_guard and way != "shard_map" else set()
    assert set(exchanged) == allowed


@pytest.mark.parametrize("in_context", [True, False])
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_arrays_on_explicit_axes_are_mapped(transform, in_context):
    mesh, starts = sharded("explicit")
    expected = np.stack([spectrum()(x) for x in STARTS])
    if in_context:
        with jax.set_mesh(mesh):
            found = transform(jax.vmap(spectrum()))(starts)
    else:
        found = transform(jax.vmap(spectrum()))(starts)
    assert found.sharding.spec == PartitionSpec("batch", None)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_function_on_explicit_axes_may_close_over_arrays():
    mesh, starts = sharded("explicit")

    def exponents(start, matrix):
        def step(input, state):
            return jnp.tanh(matrix @ state)

        return lejax.lyapunov_spectrum(step, start, num_steps=20).exponents

    def total(start, matrix):
        return jnp.sum(jnp.arange(4.0) * exponents(start, matrix))

    expected = np.stack([jax.grad(total)(x, WEIGHTS) for x in STARTS])
    of_weights = np.sum([jax.grad(total, 1)(x, WEIGHTS) for x in STARTS], axis=0)
    with jax.set_mesh(mesh):
        found = jax.jit(jax.vmap(jax.grad(total), in_axes=(0, None)))(starts, WEIGHTS)
        mapped = jax.vmap(total, in_axes=(0, None))
        found_of_weights = jax.jit(jax.grad(lambda w: jnp.sum(mapped(starts, w))))(WEIGHTS)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found_of_weights, of_weights, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["in_context", "jit"])
def test_the_only_array_on_explicit_axes_may_be_in_a_closure(transform):
    mesh, _ = sharded("explicit")
    matrix = jax.device_put(WEIGHTS, NamedSharding(mesh, PartitionSpec(None, "batch")))

    def exponents(matrix):
        def step(input, state):
            return jnp.tanh(matrix @ state)

        return lejax.lyapunov_spectrum(step, jnp.ones(4), num_steps=20).exponents

    expected = exponents(WEIGHTS)
    if transform is jax.jit:
        found = jax.jit(exponents)(matrix)
    else:
        with jax.set_mesh(mesh):
            found = exponents(matrix)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_closure_may_hold_what_is_no_pytree():
    weights = {1: WEIGHTS, "one": WEIGHTS}  # JAX cannot sort these keys
    spectrum = lejax.lyapunov_spectrum(
        lambda input, state: jnp.tanh(weights["one"] @ state), STARTS[0], num_steps=20
    )
    assert jnp.all(jnp.isfinite(spectrum.exponents))


def test_a_function_on_explicit_axes_may_close_over_itself():
    mesh, starts = sharded("explicit")

    def exponents(start):
        matrix = start[:, None] * WEIGHTS

        def repeat(state, count):
            return state if count == 0 else jnp.tanh(matrix @ repeat(state, count - 1))

        def step(input, state):
            return repeat(state, 2)

        return lejax.lyapunov_spectrum(step, jnp.ones(4), num_steps=20).exponents

    with jax.set_mesh(mesh):
        found = jax.vmap(exponents)(starts)
    np.testing.assert_allclose(found, np.stack([exponents(x) for x in STARTS]), rtol=1e-8)


HOLDERS = {
    "list in a closure": lambda w: (lambda held: lambda _, x: jnp.tanh(held[0]["w"] @ x))([{"w": w}]),
    "function in a closure": lambda w: (lambda f: lambda _, x: f(x))(lambda x: jnp.tanh(w @ x)),
    "default": lambda w: lambda _, x, w=w: jnp.tanh(w @ x),
    "keyword default": lambda w: lambda _, x, *, w=w: jnp.tanh(w @ x),
    "default without an array": lambda w: lambda _, x, *, scale=1.0: jnp.tanh(scale * w @ x),
    "functools.partial": lambda w: ft.partial(lambda w, _, x: jnp.tanh(w @ x), w),
    "keyword of functools.partial": lambda w: ft.partial(lambda _, x, w: jnp.tanh(w @ x), w=w),
}  # fmt: skip


@pytest.mark.parametrize("name", HOLDERS)
def test_functions_on_explicit_axes_may_hold_arrays_in_other_ways(name):
    _, starts = sharded("explicit")

    def call(function, x):
        out = function(None, x)
        assert AxisType.Explicit not in jax.typeof(out).sharding.mesh.axis_types
        return out

    def apply(start):
        return call_with_automatic_axes(call, (HOLDERS[name](start[:, None] * WEIGHTS), start), {})

    np.testing.assert_allclose(
        jax.vmap(apply)(starts), [np.tanh(x[:, None] * WEIGHTS @ x) for x in STARTS], rtol=1e-12
    )


def test_a_shard_map_over_another_mesh_keeps_the_message_of_jax():
    _, starts = sharded("explicit")
    other = jax.make_mesh((2,), ("other",))
    mapped = jax.shard_map(jnp.tanh, mesh=other, in_specs=BATCH, out_specs=BATCH)
    with pytest.raises(ValueError, match="mesh passed to shard_map"):
        call_with_automatic_axes(mapped, (starts,), {})


def test_an_array_that_cannot_be_found_is_refused_in_a_sentence():
    mesh, starts = sharded("explicit")

    def exponents(start):
        step = jax.jit(lambda input, state: jnp.tanh(start * (WEIGHTS @ state)))
        return lejax.lyapunov_spectrum(step, start, num_steps=20).exponents

    def remedied(start):
        step = eqx.Partial(lambda s, input, state: jnp.tanh(s * (WEIGHTS @ state)), start)
        return lejax.lyapunov_spectrum(step, start, num_steps=20).exponents

    message = r"^lyapunov_spectrum got a function that reads an array .* or map with jax.shard_map"
    with jax.set_mesh(mesh), pytest.raises(ValueError, match=message):
        jax.vmap(exponents)(starts)
    expected = np.stack([exponents(x) for x in STARTS])
    mapped = jax.shard_map(jax.vmap(exponents), mesh=mesh, in_specs=BATCH, out_specs=BATCH)
    np.testing.assert_allclose(jax.jit(mapped)(starts), expected, rtol=1e-8)
    np.testing.assert_allclose(jax.vmap(remedied)(starts), expected, rtol=1e-8)


@pytest.mark.slow  # three processes that start JAX
def test_two_processes_give_the_results_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    files = [tmp_path / f"{name}.npz" for name in ("first", "second", "alone")]
    finish(*[start("two_processes.py", files[i], address, i, devices=2) for i in (0, 1)])
    finish(start("two_processes.py", files[2], devices=4))
    first, second, alone = map(np.load, files)
    assert len(alone.files) == 12
    for name in alone.files:
        if name.endswith("exponents"):
            found = np.concatenate([first[name], second[name]])
            np.testing.assert_allclose(found, alone[name], rtol=1e-8, atol=1e-11)
        else:  # both processes hold the value and the gradient
            np.testing.assert_array_equal(first[name], second[name])
            np.testing.assert_allclose(first[name], alone[name], rtol=1e-8, atol=1e-13)
