"""Every public function under every transformation of JAX, traced and not compiled; or it says why not."""

import inspect
import re
from functools import reduce

import jax
import pytest
from transforming import TRANSFORMATIONS, trace
from verbs import CONSTANT, HOST, LARGE, VERBS, function_of, public_functions

import lejax


# The rest runs with the slow tests: this one holds the most common ones in one.
MOST = "grad under shard_map"
CORE = ("lyapunov_spectrum.columns", "lyapunov_spectrum.long", "training.spectrum_penalty.term")


def cells(table, is_fast):
    return [
        pytest.param(
            name, transformation, marks=() if is_fast(name, transformation) else pytest.mark.slow
        )
        for name in table
        for transformation in TRANSFORMATIONS
    ]


def test_every_public_function_is_here():
    here = {function_of(name) for table in (VERBS, LARGE, HOST) for name in table} | CONSTANT
    assert here == public_functions()


@pytest.mark.parametrize(
    ("name", "transformation"),
    cells(VERBS, lambda name, what: what == MOST and name == function_of(name)),
)
def test_small(name, transformation):
    trace(transformation, name, VERBS)


@pytest.mark.parametrize(
    ("name", "transformation"), cells(LARGE, lambda name, what: what == MOST and name in CORE)
)
def test_large(name, transformation):
    trace(transformation, name, LARGE)


@pytest.mark.parametrize("name", HOST)
def test_functions_of_the_host_say_so(name):
    function, x = HOST[name]
    for transform, batch in ((jax.jit, x), (jax.vmap, x[None])):
        with pytest.raises(TypeError, match=r"cannot be (traced|called|drawn)") as caught:
            transform(lambda x: (function(x), x.sum())[1])(batch)
        assert "Tracer" not in str(caught.value)
        assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", sorted({function_of(name) for name in HOST}))
def test_docstrings_of_functions_of_the_host_say_so(name):
    function = reduce(getattr, name.split("."), lejax)
    if not name.startswith("plot."):
        assert re.search(
            r"cannot be\s+traced|(on|of)\s+the\s+host|host function", inspect.getdoc(function)
        )
