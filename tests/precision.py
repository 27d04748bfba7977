"""Products of matrices that a TPU rounds: where they are in a program, and a CPU that rounds them too."""

import functools as ft

import jax
from jax._src.interpreters import mlir
from jax._src.lib.mlir.dialects import hlo
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.lax import Precision


PRODUCTS = ("dot_general", "conv_general_dilated")
HIGHEST = (Precision.HIGHEST, Precision.HIGHEST)


def rounded_products(jaxpr):
    """The products of a jaxpr below the highest precision, as text."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS and equation.outvars[0].aval.dtype.kind in "fc":
            found += [str(equation)] if equation.params["precision"] != HIGHEST else []
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                if isinstance(inner, Jaxpr):
                    found += rounded_products(inner)
    return found


def round_products(monkeypatch):
    """Let the CPU do what a TPU does: round factors to bfloat16 unless their product is in highest precision."""

    def lower(exact, context, left, right, **options):
        is_real = all(x.dtype.kind == "f" for x in context.avals_in)
        if options["precision"] != HIGHEST and is_real:
            # XLA drops a conversion there and back.
            left, right = (hlo.reduce_precision(x, 8, 7) for x in (left, right))
        return exact(context, left, right, **options)

    rules = mlir._platform_specific_lowerings["cpu"]  # a public registration could not be undone
    for primitive in (jax.lax.dot_general_p, jax.lax.conv_general_dilated_p):
        entry = rules.get(primitive, mlir._lowerings[primitive])
        rounding = type(entry)(ft.partial(lower, entry.rule), entry.inline)
        monkeypatch.setitem(rules, primitive, rounding)
