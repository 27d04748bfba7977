"""What programs hold that JAX lowers for another platform: no accelerator is needed for that."""

import re

import jax


FORBIDDEN = {
    "float64": r"f64",
    "a callback to the host": r"callback",
    "LAPACK": r"lapack",
    "a product below the highest precision": r"stablehlo.dot_general(?!.*HIGHEST)",
}


def lower(function, arguments, platform):
    """The program of a function in StableHLO."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))


def forbidden(function, arguments, platform="tpu"):
    """What a program for a TPU must not hold, by name."""
    text = lower(function, arguments, platform).as_text()
    return [name for name, pattern in FORBIDDEN.items() if re.search(pattern, text)]


def waits(function, arguments, platform):
    """Where the host waits for a value of the device: branches, and loops whose number of turns is not a constant.

    A choice of a platform is a branch on a constant, or one that only picks another constant: compilers remove it.
    """
    module = lower(function, arguments, platform).compiler_ir("stablehlo")
    return [operation.name for operation in _operations(module.operation) if _waits(operation)]


def _operations(operation):
    yield operation
    for region in operation.regions:
        for block in region:
            for inner in block:
                yield from _operations(inner.operation)


def _waits(operation):
    if operation.name in ("stablehlo.case", "stablehlo.if"):
        inner = [o.operation.name for r in operation.regions for block in r for o in block]
        return (
            len(operation.regions) > 1
            and not set(inner) <= {"stablehlo.constant", "stablehlo.return"}
            and not _is_constant(operation.operands[0])
        )
    return operation.name == "stablehlo.while" and not _counts(operation)


def _counts(loop):
    """Whether a loop ends when a number that rises by a constant in each turn reaches another constant."""
    condition, body = (region.blocks[0] for region in loop.regions)
    comparison = _source(list(condition)[-1].operands[0])
    if comparison.name != "stablehlo.compare" or not _is_constant(comparison.operands[1]):
        return False
    counter = comparison.operands[0]
    if counter not in list(condition.arguments):
        return False
    index = list(condition.arguments).index(counter)
    addition = _source(list(body)[-1].operands[index])
    return (
        addition.name == "stablehlo.add"
        and addition.operands[0] == body.arguments[index]
        and _is_constant(addition.operands[1])
    )


def _source(value):
    return getattr(value.owner, "operation", value.owner)


def _is_constant(value):
    return getattr(_source(value), "name", None) == "stablehlo.constant"
