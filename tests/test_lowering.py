"""Every public function that JAX can trace lowers for CPU, CUDA and TPU, without what is slow or wrong there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from lowered import forbidden, waits


PARTS = 8


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_verb_lowers_for_every_platform(part):
    """In processes of their own: tests compute in float64, TPUs in float32."""
    script = Path(__file__).with_name("lower_verbs.py")
    run = subprocess.run(
        [sys.executable, script, str(part), str(PARTS)],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_ENABLE_X64": "0"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["programs"] > 30
    assert not result["faults"]


def test_what_must_not_be_in_a_program_is_found():
    x = jnp.eye(3)
    assert forbidden(jnp.sin, (x.astype(jnp.float32),)) == []
    assert forbidden(jnp.sin, (x,)) == ["float64"]
    assert "a product below the highest precision" in forbidden(lambda x: x @ x, (x,))
    with jax.default_matmul_precision("highest"):
        assert forbidden(lambda x: x @ x, (x.astype(jnp.float32),)) == []
    callback = lambda x: jax.pure_callback(lambda x: x, x, x)
    assert "a callback to the host" in forbidden(callback, (x,), "cpu")
    assert "LAPACK" in forbidden(jnp.linalg.eigvals, (x,), "cpu")


def test_what_the_host_waits_for_is_found():
    x = jnp.ones(3)
    loop = lambda x: jax.lax.fori_loop(0, 5, lambda i, x: jnp.sin(x), x)
    until = lambda x: jax.lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: 2 * x, x)
    branch = lambda x: jax.lax.cond(jnp.sum(x) > 0, jnp.sin, jnp.cos, x)
    choice = lambda x: jax.lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos)
    doubling = lambda x: jax.lax.while_loop(lambda y: y < 9, lambda y: 2 * y, x[0])
    as_many = lambda x: jax.lax.fori_loop(0, x[0].astype(int), lambda i, x: jnp.sin(x), x)
    # In a function that the program calls, in a loop of it.
    called = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda i, x: jax.jit(branch)(x), x))
    assert waits(loop, (x,), "cuda") == waits(choice, (x,), "cuda") == []
    assert waits(doubling, (x,), "cuda") == waits(as_many, (x,), "cuda") == ["stablehlo.while"]
    assert waits(called, (x,), "cuda") == ["stablehlo.case"]
    assert waits(until, (x,), "cuda") == ["stablehlo.while"]
    assert waits(branch, (x,), "cuda") == ["stablehlo.case"]
