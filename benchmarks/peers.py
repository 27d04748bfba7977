"""Time of a Lyapunov spectrum: lejax against lyapax, chaotax, and loops written by hand.

Every contender of a row starts from the same state and frame and takes the same steps in float64. All orthonormalize
after each step, except lejax, which by default does so as often as the digits need. All must agree with lejax on the
first exponent and on the sum within five standard errors; otherwise the exit code is 1.
"""

import _harness  # first: it sets what JAX and NumPy read when they start
import _loops
import _problems
import jax
import numpy as np
from _harness import Contender, Timing
from _problems import Problem

import lejax


lyapax = _harness.import_peer("lyapax")
chaotax = _harness.import_peer("chaotax")
torch = _harness.import_peer("torch", "pip install torch")

PEERS = {
    "lyapax jit": "lyapax under a jax.jit written by hand, parameters as arguments",
    "scan jit": "a hand-written jitted scan of jax.jacfwd and jnp.linalg.qr; stands in for lyapax with inputs",
    "lyapax doc": "lyapax called as in its documentation: compiles anew at every call",
    "chaotax jit": "chaotax under a jax.jit written by hand, which needs jax.ensure_compile_time_eval",
    "chaotax doc": "chaotax called as in its documentation: compiles anew at every call",
    "NumPy": "a loop with analytic tangents and numpy.linalg.qr",
    "PyTorch": "the same loop with torch on one thread",
}


def problems(toy: bool) -> list[Problem]:
    if toy:
        return [
            _problems.lorenz(steps=400, loop_steps=200),
            _problems.tanh_network(16, 8, steps=100),
            _problems.gru(8, steps=100),
            _problems.lstm(8, steps=100),
        ]
    return [
        _problems.lorenz(steps=50_000, loop_steps=5_000),
        _problems.tanh_network(64, 64, steps=1_000),
        _problems.tanh_network(64, 8, steps=2_000),
        _problems.tanh_network(256, 8, steps=1_000),
        _problems.gru(64, steps=1_000),
        _problems.lstm(64, steps=500),
    ]


def use_lejax(p: Problem) -> lejax.LyapunovSpectrum:
    return lejax.lyapunov_spectrum(
        p.cell,
        p.state,
        p.inputs,
        num_exponents=p.num_exponents,
        num_steps=p.steps,
        frame=p.frame,
    )


def use_lyapax(p: Problem, parameters, vector):
    step = p.make_step(*parameters)
    options = {"dt": p.dt, "n_steps": p.steps, "k": p.num_exponents, "renorm_every": 1}
    return lyapax.lyapunov_spectrum(step, vector, **options).exponents


def use_chaotax(p: Problem, parameters, vector, rows):
    step = p.make_step(*parameters)
    options = {"rollout_steps": p.steps, "warmup_steps": 0, "discard_steps": 0, "dt": p.dt}
    estimate = chaotax.lyapunov_spectrum(step, num_exponents=p.num_exponents, **options)
    return estimate(vector, rows)


def use_loop(p: Problem, xp, convert):
    """The hand-written loop as a function without arguments; scalars become plain numbers, which are fastest."""
    parameters = [x.item() if x.ndim == 0 else convert(np.array(x)) for x in p.parameters]
    vector, frame = convert(np.array(p.vector)), convert(np.array(p.frame))
    inputs = None if p.inputs is None else convert(np.array(p.inputs))
    arguments = (parameters, vector, frame, inputs, p.loop_steps, p.dt)
    return lambda: _loops.spectrum(xp, p.tangent_step, *arguments)


def contend(p: Problem) -> tuple[list[Contender], dict[str, str]]:
    """The contenders of a row, lejax first, and the reason for each empty column."""
    runs = {"lejax": lambda: use_lejax(p).exponents}
    absent = {}
    if p.make_step is None:
        runs["scan jit"] = lambda: _problems.scan_jacobians(
            p.steps, p.cell, p.state, p.inputs, p.frame
        )
        absent |= dict.fromkeys([name for name in PEERS if "ax " in name], "takes no inputs")
    else:
        absent["scan jit"] = "not needed without inputs"
        vector, rows = p.vector, p.frame.T

        @jax.jit
        def jitted_lyapax(parameters, vector):
            return use_lyapax(p, parameters, vector)

        @jax.jit
        def jitted_chaotax(parameters, vector, rows):
            # chaotax computes a shape with JAX operations, on which a bare jit fails.
            with jax.ensure_compile_time_eval():
                return use_chaotax(p, parameters, vector, rows)

        if lyapax is not None:
            runs["lyapax jit"] = lambda: jitted_lyapax(p.parameters, vector)
            runs["lyapax doc"] = lambda: use_lyapax(p, p.parameters, vector)
        if chaotax is not None:
            runs["chaotax jit"] = lambda: jitted_chaotax(p.parameters, vector, rows)
            runs["chaotax doc"] = lambda: use_chaotax(p, p.parameters, vector, rows)
    contenders = [Contender(name, run, p.steps) for name, run in runs.items()]

    note = "" if p.loop_steps == p.steps else f"runs {p.loop_steps} of {p.steps} steps"
    loops = {"NumPy": use_loop(p, np, np.asarray)}
    if torch is not None:
        torch.set_num_threads(1)
        loops["PyTorch"] = use_loop(p, torch, torch.from_numpy)
    contenders += [Contender(name, run, p.loop_steps, note) for name, run in loops.items()]
    for name in PEERS.keys() - runs.keys() - loops.keys() - absent.keys():
        absent[name] = "not installed"
    return contenders, absent


def disagreements(p: Problem, spectrum: lejax.LyapunovSpectrum, timings: list[Timing]) -> list[str]:
    """A sentence for each contender whose first exponent or sum differs from that of lejax."""
    exponents, blocks = np.asarray(spectrum.exponents), np.asarray(spectrum.block_exponents)
    sentences = []
    for label, function, samples in (
        ("first exponent", np.max, blocks[:, np.argmax(exponents)]),
        ("sum", np.sum, blocks.sum(axis=1)),
    ):
        ours, error = function(exponents), np.std(samples, ddof=1) / len(samples) ** 0.5
        for timing in timings:
            share = timing.contender.steps / p.steps
            allowed = 5 * error * (1 + 1 / share) ** 0.5 + 1e-6
            theirs = function(timing.result)
            if not abs(theirs - ours) <= allowed:
                sentences.append(
                    f"{p.name}: {timing.contender.name} has {label} {theirs:.6f}, "
                    f"lejax {ours:.6f}; allowed difference {allowed:.1e}."
                )
    return sentences


def measure(p: Problem, rounds: int) -> dict:
    """One row: times, ratios and exponents of every contender."""
    contenders, absent = contend(p)
    timings = {t.contender.name: t for t in _harness.time_round_robin(contenders, rounds)}
    spectrum, ours = use_lejax(p), timings["lejax"]
    baseline = timings.get("lyapax jit" if p.make_step is not None else "scan jit")
    return {
        "problem": p.name,
        "state_size": p.vector.size,
        "num_exponents": p.num_exponents,
        "steps": p.steps,
        "baseline": None if baseline is None else baseline.contender.name,
        "lejax_over_baseline": None if baseline is None else _harness.paired_ratio(ours, baseline),
        "absent": absent,
        "standard_error_of_lejax": spectrum.standard_error,
        "disagreements": disagreements(p, spectrum, list(timings.values())),
        "contenders": {
            name: {
                "steps": timing.contender.steps,
                "note": timing.contender.note,
                "seconds_per_step": timing.seconds_per_step,
                "times": timing.times,
                "compile_time": timing.compile_time,
                "over_lejax": _harness.paired_ratio(timing, ours),
                "exponents": np.sort(timing.result)[::-1],
            }
            for name, timing in timings.items()
        },
    }


def print_tables(rows: list[dict]) -> None:
    speeds, compiles, notes = [], [], {}
    for row in rows:
        contenders, ratio = row["contenders"], row["lejax_over_baseline"]
        text = "{median:.2f} [{quartile_1:.2f}, {quartile_3:.2f}]".format(**ratio) if ratio else "-"
        microseconds = 1e6 * contenders["lejax"]["seconds_per_step"]
        speeds.append([row["problem"], str(row["steps"]), f"{microseconds:.2f}", text])
        compiles.append([row["problem"], f"{contenders['lejax']['compile_time']:.2f}"])
        for name in PEERS:
            found = contenders.get(name)
            speeds[-1].append(f"{found['over_lejax']['median']:.2f}" if found else "-")
            compiles[-1].append(f"{found['compile_time']:.2f}" if found else "-")
            reason = found["note"] if found else row["absent"][name]
            if reason:
                notes.setdefault((name, reason), []).append(row["problem"])
    print("\nTime per step of lejax, and times of its peers over that of lejax: medians of paired")
    print("ratios. Baseline: lyapax jit, or scan jit where there are inputs; with quartiles.")
    header = ["problem", "steps", "lejax [us]", "lejax / baseline", *PEERS]
    print(_harness.format_table(header, speeds))
    print("\nCompile time in seconds: the first call less a later one.")
    print(_harness.format_table(["problem", "lejax", *PEERS], compiles))
    print()
    for name, meaning in PEERS.items():
        print(f"{name}: {meaning}.")
        for (noted, reason), where in notes.items():
            if noted == name:
                print(f"  {reason}: {'all rows' if len(where) == len(rows) else '; '.join(where)}")


def main():
    arguments = _harness.parse_arguments(__doc__)
    rounds = 1 if arguments.toy else 7
    rows = []
    for problem in problems(arguments.toy):
        rows.append(measure(problem, rounds))
        print(f"done: {problem.name}", flush=True)
    print_tables(rows)
    if arguments.toy:
        print("Toy sizes: the times are those of a call and say nothing about long runs.")
    _harness.write_json(
        arguments.json, benchmark="peers", toy=arguments.toy, rounds=rounds, rows=rows
    )
    wrong = [sentence for row in rows for sentence in row["disagreements"]]
    if wrong:
        raise SystemExit("\n".join(wrong))
    print("All contenders agree on the first exponent and on the sum.")


if __name__ == "__main__":
    main()
