"""Test whether standard errors are calibrated: how often exponents lie within two of them of the truth.

Each case is run from many seeds at once (`vmap`), with the default number of blocks, at several lengths.
The truth is the mean over as many other seeds of the greatest length. Its own error is that of one such
run divided by the square root of the number of seeds.

Coverage is the share of seeds whose exponent lies within two standard errors of the truth. With 20
independent normal block means it would be 94 % (Student's t with 19 degrees of freedom). 90 to 99 % is
called calibrated for the first exponent of the longest runs; if it is not, the exit code is 1. Spread over
error is the standard deviation over the seeds divided by the root mean square of the standard errors they
report: above 1 the errors are too small, as in runs whose blocks are shorter than the memory of the dynamics.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import lejax


TARGET = (0.90, 0.99)


def henon_run(key, num_steps):
    """The Henon map from a random point near the origin, in the basin of its attractor, past a transient."""
    start = jr.uniform(key, (2,), minval=-0.1, maxval=0.1)
    return lejax.lyapunov_spectrum(
        lejax.systems.Henon(), start, num_steps=num_steps, transient=500, throw=False
    )


def network_run(key, num_steps):
    """A tanh network, N = 16, g = 1.5, driven through random weights by white noise. The network is fixed;
    each seed draws a new input and starting state."""
    size, transient = 16, 200
    cell = lejax.cells.RNNCell.from_weights(
        weight_hh=1.5 * size**-0.5 * jr.normal(jr.key(2), (size, size)),
        weight_ih=0.5 * jr.normal(jr.key(3), (size, 1)),
    )
    key_input, key_state = jr.split(key)
    inputs = jr.normal(key_input, (transient + num_steps, 1))
    return lejax.lyapunov_spectrum(
        cell, jr.normal(key_state, (size,)), inputs, transient=transient, throw=False
    )


@eqx.filter_jit
def run_all(run, keys, num_steps):
    return jax.vmap(lambda key: run(key, num_steps))(keys)


def run_seeds(run, keys, num_steps):
    """Exponents and standard errors (seeds, k), one run from each key."""
    spectra = run_all(run, keys, num_steps)
    failed = int(jnp.sum(spectra.diagnostics.first_bad_step >= 0))
    if failed:
        raise SystemExit(f"{failed} of {keys.shape[0]} runs of {run.__name__} diverged.")
    return np.asarray(spectra.exponents), np.asarray(spectra.standard_error)


def calibrate(name, run, num_seeds, lengths):
    """Coverage and spread over error for each length and exponent."""
    keys, other_keys = jr.split(jr.key(0), (2, num_seeds))
    reference, _ = run_seeds(run, other_keys, lengths[-1])
    truth = reference.mean(axis=0)
    runs = []
    for num_steps in lengths:
        exponents, errors = run_seeds(run, keys, num_steps)
        runs.append(
            {
                "num_steps": num_steps,
                "coverage": np.mean(np.abs(exponents - truth) <= 2 * errors, axis=0),
                "spread_over_error": exponents.std(axis=0, ddof=1) / np.sqrt(np.mean(errors**2, 0)),
                "mean_standard_error": errors.mean(axis=0),
                "bias_over_spread": (exponents.mean(axis=0) - truth)
                / exponents.std(axis=0, ddof=1),
            }
        )
        print(f"done: {name}, {num_steps} steps", flush=True)
    first = float(runs[-1]["coverage"][0])
    return {
        "case": name,
        "num_seeds": num_seeds,
        "long_run_exponents": truth,
        "long_run_error": reference.std(axis=0, ddof=1) / num_seeds**0.5,
        "runs": runs,
        "first_exponent_is_calibrated": TARGET[0] <= first <= TARGET[1],
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    num_seeds = 20 if arguments.toy else 200
    lengths = [200] if arguments.toy else [100, 1_000, 10_000]
    cases = [
        calibrate("Henon", henon_run, num_seeds, lengths),
        calibrate("tanh N=16 g=1.5, white noise", network_run, num_seeds, lengths),
    ]
    header = ["case", "exponent", "long run"]
    header += [
        f"T={num_steps}: {what}" for num_steps in lengths for what in ("error", "cover", "s/e")
    ]
    rows = []
    for case in cases:
        for i, truth in enumerate(case["long_run_exponents"]):
            cells = [case["case"], str(i + 1), f"{truth:.4f}"]
            for run in case["runs"]:
                cells.append(f"{run['mean_standard_error'][i]:.4f}")
                cells.append(f"{run['coverage'][i]:.1%}")
                cells.append(f"{run['spread_over_error'][i]:.2f}")
            rows.append(cells)
    print(
        f"\n{num_seeds} seeds. After T steps: mean standard error, coverage within two standard errors,"
    )
    print("spread over error (s/e).")
    print(_harness.format_table(header, rows))
    if arguments.toy:
        print("Too few seeds to test calibration.")
    else:
        for case in cases:
            share = case["runs"][-1]["coverage"][0]
            verdict = "in" if case["first_exponent_is_calibrated"] else "NOT in"
            low, high = TARGET
            print(f"{case['case']}: first exponent {share:.1%}, {verdict} {low:.0%} to {high:.0%}.")
    _harness.write_json(
        arguments.json, benchmark="calibration", toy=arguments.toy, target=TARGET, cases=cases
    )
    if not arguments.toy and not all(case["first_exponent_is_calibrated"] for case in cases):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
