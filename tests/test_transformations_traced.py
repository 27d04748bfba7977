"""Trace every public function under every transformation of JAX, with all products in highest precision; functions of
the host must refuse."""

import inspect
import re
from functools import reduce

import jax
import pytest
from precision import rounded_products
from transforming import TRANSFORMATIONS, trace
from verbs import CONSTANT, HOST, LARGE, VERBS, function_of, public_functions

import lejax


# This transformation combines the most common ones; all others run with the slow tests.
COMMON = "grad under shard_map"
# Where a program of the user's is differentiated, the rules of JAX are traced with the user's precision: that of a QR
# factorization consists of products.
DERIVATIVES_OF_QR = {
    "principal_angles", "cells.fit_readout", "training.floss", "training.prune_weights", "training.prune_units",
}  # fmt: skip
CORE = ("lyapunov_spectrum.columns", "lyapunov_spectrum.long", "training.spectrum_penalty.term")


def cells(table, is_fast):
    return [
        pytest.param(
            name, transformation, marks=() if is_fast(name, transformation) else pytest.mark.slow
        )
        for name in table
        for transformation in TRANSFORMATIONS
    ]


def check_products(name, closed):
    assert function_of(name) in DERIVATIVES_OF_QR or rounded_products(closed.jaxpr) == []


def test_the_tables_hold_every_public_function():
    listed = {function_of(name) for table in (VERBS, LARGE, HOST) for name in table} | CONSTANT
    assert listed == public_functions()


@pytest.mark.parametrize(
    ("name", "transformation"),
    cells(VERBS, lambda name, what: what == COMMON and name == function_of(name)),
)
def test_small_sizes_can_be_traced(name, transformation):
    check_products(name, trace(transformation, name, VERBS))


@pytest.mark.parametrize(
    ("name", "transformation"), cells(LARGE, lambda name, what: what == COMMON and name in CORE)
)
def test_large_sizes_can_be_traced(name, transformation):
    check_products(name, trace(transformation, name, LARGE))


@pytest.mark.parametrize("name", HOST)
def test_functions_of_the_host_refuse_traced_arrays(name):
    function, x = HOST[name]
    for transform, batch in ((jax.jit, x), (jax.vmap, x[None])):
        with pytest.raises(TypeError, match=r"cannot be (traced|called|drawn)") as caught:
            transform(lambda x: (function(x), x.sum())[1])(batch)
        assert "Tracer" not in str(caught.value)
        assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", sorted({function_of(name) for name in HOST}))
def test_docstrings_state_that_a_function_runs_on_the_host(name):
    function = reduce(getattr, name.split("."), lejax)
    if not name.startswith("plot."):
        assert re.search(
            r"cannot be\s+traced|(on|of)\s+the\s+host|host function", inspect.getdoc(function)
        )
