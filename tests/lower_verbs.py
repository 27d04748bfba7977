"""Lower every public function that JAX can trace, its vmap and its gradient, for CPU, CUDA and TPU, in float32.

    python tests/lower_verbs.py [PART PARTS]

Prints a JSON object: how many programs there are, and by the name of each that fails what its program for a TPU holds
that it must not, or the error.
"""

import json
import sys

import jax
from lowered import forbidden
from transforming import pair, scalar
from verbs import LARGE, VERBS


TRANSFORMATIONS = {
    "": lambda function, x: (function, x),
    "vmap": lambda function, x: (jax.vmap(function), pair(x)),
    "grad": lambda function, x: (jax.grad(scalar(function)), x),
}


PLATFORMS = ("cpu", "cuda", "tpu")
# JAX lowers no program for several platforms that holds the eigenvalues of LAPACK, not even where only one calls them.
ONE_BY_ONE = (
    "lyapunov_spectrum.echo",
    "indicators.transition_product.eigenvalues",
    "orbits.floquet_multipliers",
)


def faults(name, function, x):
    try:
        compiled = jax.jit(function)
        for platforms in [(p,) for p in PLATFORMS] if name in ONE_BY_ONE else [PLATFORMS]:
            jax.export.export(compiled, platforms=platforms)(x)
        return forbidden(compiled, (x,))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"[:300]]


def main(part: int = 0, parts: int = 1):
    table = {**VERBS, **LARGE}
    programs = [(name, kind) for name in table for kind in TRANSFORMATIONS]
    found = {}
    for name, kind in programs[part::parts]:
        transformed = TRANSFORMATIONS[kind](*table[name])
        found[f"{name} {kind}".strip()] = faults(name, *transformed)
    failed = {name: reasons for name, reasons in found.items() if reasons}
    print(json.dumps({"programs": len(found), "faults": failed}, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
