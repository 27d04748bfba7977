"""The lines of Python that reproduce each number and picture of a page.

The file of `Report` imports this one, so that annotations here say `Any` for a `Report`.
"""

from typing import Any

import jax
import jax.random as jr
import numpy as np

from .parts import MOST_GUESSES, Angles, count_states


_WIDTH = 76


def run_lines(report: Any) -> str:
    """The run behind everything else: cell, state, inputs and spectrum."""
    options = {name: x for name, x in report.options.items() if x is not None}
    lines = [report.setup]
    if "key" in options:
        key = options.pop("key")
        data, kind = np.asarray(jr.key_data(key)).tolist(), str(jr.key_impl(key))
        bits = f"jnp.array({data}, dtype=jnp.uint32)"
        lines.append(f"key = jax.random.wrap_key_data({bits}, impl={kind!r})")
    shown = {name: _number(x) for name, x in options.items()}
    shown |= {"key": "key"} if len(lines) > 1 else {}
    lines.append(call("spectrum", "lejax.run.long_run", ["cell", "state", "inputs"], shown))
    return "\n".join(lines)


def code(report: Any) -> dict[str, str]:
    """The lines for each part of the page, after those of `run_lines`."""
    size = report.spectrum.frame.shape[0]
    lines = {
        "spectrum": "lejax.plot.plot_spectrum(spectrum)\nprint(spectrum)",
        "convergence": "lejax.plot.plot_convergence(spectrum)",
        "regime": "distance = spectrum.exponents[0] / spectrum.standard_error[0]  # from zero, in errors",
        "memory": "time_constants = 1 / jnp.abs(spectrum.exponents)\n"
        "gradient_horizon = jnp.log(10) * time_constants[0] / spectrum.dt  # steps",
        "dimension": "tolerance = 2 * jnp.nan_to_num(spectrum.standard_error)\n"
        + call(
            "dimension, dimension_error",
            "lejax.jackknife",
            ["spectrum", f"lambda x: lejax.kaplan_yorke_dimension(x, {size}, tolerance)"],
            {},
        ),
        "participation": f"{_states(report)}\n"
        "rows = jax.vmap(lambda state: jax.flatten_util.ravel_pytree(state)[0])(states)\n"
        "variance = jnp.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2\n"
        "participation = variance.sum() ** 2 / (variance**2).sum()",
        "windows": "rates = spectrum.block_exponents[:, 0]  # one for each window\n"
        "stops = jnp.cumsum(spectrum.block_steps)  # in counted steps\n"
        "lejax.plot.plot_finite_time_exponents(spectrum)",
        "lost": "dead = jnp.isneginf(spectrum.exponents)\n"
        "bounds = jnp.cumsum(spectrum.diagnostics.unresolved) > 0",
        "trust": "status = lejax.RESULTS[spectrum.result]\n"
        "worst = spectrum.diagnostics.rounding_error.max()",
    }
    if isinstance(report.angles, Angles):
        lines["angles"] = _angles(report)
    if not hasattr(report.fixed_points, "reason"):
        lines["points"] = _points(report)
    return lines


def call(result: str, function: str, args: list[str], options: dict[str, Any]) -> str:
    """`result = function(args, options)`, with one argument a line if it is long."""
    parts = [*args, *(f"{name}={value}" for name, value in options.items())]
    line = f"{result} = {function}({', '.join(parts)})"
    if len(line) <= _WIDTH:
        return line
    return f"{result} = {function}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def _states(report: Any) -> str:
    transient, count = report.options["transient"], count_states(report.spectrum)
    unroll = call(
        "states",
        "lejax.unroll",
        ["cell", "state", "inputs"],
        {"num_steps": transient + count},
    )
    return f"{unroll}\nstates = jax.tree.map(lambda x: x[{transient}:], states)"


def _angles(report: Any) -> str:
    angles = report.angles
    options = dict(angles.options)
    options |= {"dt": "spectrum.dt"} if report.options["dt"] is not None else {}
    options |= {"key": "key"} if report.options["key"] is not None else {}
    run = call("run", "lejax.covariant_lyapunov_vectors", ["cell", "state", "inputs"], options)
    split = angles.split
    return (
        f"{run}\n"
        f"first, rest = run.vectors[..., :{split}], run.vectors[..., {split}:]\n"
        "smallest = lejax.principal_angles(first, rest)[:, 0]\n"
        "sharing = lejax.participation_ratio(run.vectors).mean(axis=0)\n"
        "lejax.plot.plot_angles(smallest)"
    )


def _points(report: Any) -> str:
    spectrum, lines = report.spectrum, [_states(report)]
    count = len(jax.tree.leaves(report.states)[0])
    stride = -(-count // MOST_GUESSES)
    lines.append(f"guesses = jax.tree.map(lambda x: x[::{stride}], states)")
    given = "None"
    if report.is_driven:
        start = report.options["transient"]
        stop = start + int(spectrum.num_steps)
        given = "mean_input"
        lines.append(f"mean_input = jax.tree.map(lambda x: x[{start}:{stop}].mean(axis=0), inputs)")
    lines.append(
        call(
            "points",
            "lejax.orbits.find_fixed_points",
            ["cell", "guesses", given],
            {"max_num_unique": 20, "fallback": "lejax.orbits.SpeedMinimization()"},
        )
    )
    lines.append("kinds = points.stability.kind")
    lines.append("lejax.plot.plot_phase_portrait(states, fixed_points=points)")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return repr(value.item() if hasattr(value, "item") else value)
