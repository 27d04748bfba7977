"""Lower every public function that JAX can trace, its vmap and its gradient, for CPU, CUDA and TPU, in float32.

    python tests/lower_verbs.py [PART] [PARTS]

Prints a JSON object: what each failing program holds that it must not, or the error, by its name.
"""

import json
import re
import sys

import jax
from jax import export
from transforming import pair, scalar
from verbs import LARGE, VERBS


PLATFORMS = ("cpu", "cuda", "tpu")
TRANSFORMATIONS = {
    "": lambda function, x: (function, x),
    "vmap": lambda function, x: (jax.vmap(function), pair(x)),
    "grad": lambda function, x: (jax.grad(scalar(function)), x),
    "vmap of grad": lambda function, x: (jax.vmap(jax.grad(scalar(function))), pair(x)),
}
FORBIDDEN = {
    "float64": r"f64",
    "a callback": r"callback",
    "LAPACK": r"lapack",
    "a product below the highest precision": r"stablehlo.dot_general(?!.*HIGHEST)",
}


def main(part: int = 0, parts: int = 1):
    faults = {}
    programs = [
        (name, function, x, what)
        for name, (function, x) in {**VERBS, **LARGE}.items()
        for what in TRANSFORMATIONS
    ]
    for name, function, x, what in programs[part::parts]:
        transformed, argument = TRANSFORMATIONS[what](function, x)
        try:
            compiled = jax.jit(transformed)
            export.export(compiled, platforms=PLATFORMS)(argument)
            text = export.export(compiled, platforms=("tpu",))(argument).mlir_module()
            found = [what for what, pattern in FORBIDDEN.items() if re.search(pattern, text)]
        except Exception as error:
            found = [f"{type(error).__name__}: {error}"[:300]]
        if found:
            faults[f"{name} {what}".strip()] = found
    print(json.dumps({"programs": len(programs[part::parts]), "faults": faults}, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
