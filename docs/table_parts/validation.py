"""The tables of docs/validation.md. The name of a function is that of its table."""

import math
import statistics

from .common import digits, markdown, power, read, source, with_error
from .memories import memories
from .networks import networks
from .piecewise import piecewise
from .reconstruction import reconstruction
from .training import training


def coverage() -> str:
    rows = []
    for case in read("calibration")["cases"]:
        for run in case["runs"]:
            shares = run["coverage"]
            between = f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"
            spread = run["spread_over_error"]
            cells = [f"{100 * shares[0]:.1f} %", between, digits(spread[0])]
            cells += [
                f"{min(spread):.2f} to {max(spread):.2f}",
                digits(run["mean_standard_error"][0]),
            ]
            rows.append([case["case"].replace("Henon", "Hénon"), f"{run['num_steps']}", *cells])
    header = ["system", "steps", "first exponent covered", "all exponents"]
    header += ["spread / error, first", "all", "mean error, first"]
    return markdown(header, rows) + "\n\n" + source("calibration")


# Sprott, Chaos and Time-Series Analysis (2003), unless another source stands beside the value.
LITERATURE = (
    ("Lorenz", 0, "0.9056", "Sprott (2003)"),
    ("Lorenz", 2, "-14.572", "Sprott (2003)"),
    ("Rossler", 0, "0.0714", "Sprott (2003)"),
    ("Rossler", 2, "-5.394", "Sprott (2003)"),
    ("Henon", 0, "0.4192", "Sprott (2003)"),
    ("KaplanYorke", 0, "log 2", "exact"),
    ("Baker", 0, "log 2", "exact"),
)
NAMES = {
    "Rossler": "Rössler",
    "Henon": "Hénon",
    "KaplanYorke": "Kaplan-Yorke map",
    "Baker": "baker's map",
}


def literature() -> str:
    found = read("gallery")["rows"]
    rows = []
    for name, index, text, origin in LITERATURE:
        value = math.log(2) if text == "log 2" else float(text)
        ours, error = (found[name][key][index] for key in ("exponents", "standard_error"))
        rounding = 0 if text == "log 2" else 0.5 * 10.0 ** -len(text.partition(".")[2])
        apart = max(0, abs(ours - value) - rounding)
        in_errors = digits(apart / error) if error > 1e-12 else f"{power(apart)} in all"
        if error > 1e-12 and apart > 3 * error:
            raise ValueError(f"{name}: {ours} +- {error} is far from {value}.")
        cells = [f"λ{index + 1}", text, origin, with_error(ours, error), in_errors]
        rows.append([NAMES.get(name, name), *cells])
    second = found["SprottA"]
    ours, error = second["second_exponents"][0], second["second_error"][0]
    apart = max(0, abs(ours - 0.014) - 0.0005)
    cells = ["λ1", "0.014", "Sprott (1994)", with_error(ours, error), digits(apart / error)]
    rows.append(["Sprott A, from (0, 5, 0)", *cells])
    chaotic = read("manifolds")["exponents"]
    ours, error = chaotic["chaotic"][0], chaotic["chaotic_standard_error"][0]
    apart = max(0, abs(ours - 0.4932) - 0.00005)
    cells = [
        "λ1",
        "0.4932",
        "an independent program",
        with_error(ours, error),
        digits(apart / error),
    ]
    rows.append(["piecewise-linear map “chaotic”", *cells])
    header = ["system", "exponent", "value", "source", "lejax", "apart, in standard errors"]
    return markdown(header, rows, 5) + "\n\n" + source("gallery", "manifolds")


def gallery() -> str:
    found = read("gallery")["rows"]
    flows = {n: r for n, r in found.items() if r["kind"] == "flow" and "delay" not in r["status"]}
    passed = {n: r for n, r in flows.items() if r["status"] == "passed"}
    maps = [r for r in found.values() if r["kind"] == "map"]
    sums = [r["relative_difference"] for r in passed.values()]
    zeros = []
    for row in passed.values():
        if row["needs_zero"]:
            value, error = min(
                zip(row["exponents"], row["standard_error"], strict=True), key=lambda x: abs(x[0])
            )
            zeros.append(abs(value) / error)
    agree = [r["starts_agree"] for r in found.values() if r.get("starts_agree") is not None]
    rows = [
        ["flows without delay", f"{len(flows)}"],
        ["of them, both checks passed", f"{len(passed)}"],
        ["maps, passed", f"{sum(r['status'] == 'passed' for r in maps)} of {len(maps)}"],
        [
            "sum of the exponents against the mean divergence, over the sum of their moduli",
            f"median {power(statistics.median(sums))}, largest {power(max(sums))}",
        ],
        [
            "exponent next to 0, in standard errors",
            f"median {digits(statistics.median(zeros))}, largest {digits(max(zeros))} "
            f"({len(zeros)} flows that do not settle)",
        ],
        ["a second start agrees within four joint errors", f"{sum(agree)} of {len(agree)}"],
    ]
    failed = [r["status"] for r in flows.values() if r["status"] != "passed"]
    jumps = sum("jumps" in status for status in failed)
    rest = " ".join(status for status in failed if "jumps" not in status)
    rows.append(
        [
            "flows that did not pass",
            f"{jumps} with a field that jumps; {len(failed) - jumps}: {rest}",
        ]
    )
    return markdown(["check", "result"], rows, 2) + "\n\n" + source("gallery")


def hierarchy() -> str:
    rows = [
        [
            f"{row['seed']}",
            digits(row["exact"][0]),
            power(row["found"]["error"]),
            power(row["dense"]["error"]),
            f"{row['dense']['qr_interval']}",
        ]
        for row in read("found_blocks")["pairs"]
    ]
    header = ["seed", "exact λ1", "error with blocks", "error in one frame", "its interval"]
    return markdown(header, rows) + "\n\n" + source("found_blocks")


def windows() -> str:
    data = read("windows")["rows"]
    rows = []
    for row in data:
        if row["rms_spread"][0] < 10:
            times = statistics.mean(row["lyapunov_times"])
            cells = [f"{row['window']}", digits(times)]
            for index in (0, 1):
                cells += [f"{100 * row[key][index]:.0f} %" for key in ("rms_bias", "rms_spread")]
            rows.append([f"{row['gain']:g}", *cells])
    header = ["gain", "window, steps", "in Lyapunov times", "bias, λ1", "spread, λ1"]
    header += ["bias, sum of 8", "spread, sum of 8"]
    return markdown(header, rows, 0) + "\n\n" + source("windows")


def known_values() -> str:
    """Errors of orbits and multipliers against closed forms."""
    found = read("geometry")["errors_against_known_values"]
    rows = [[name.replace("Henon", "Hénon"), power(error)] for name, error in found.items()]
    found = read("manifolds")["lozi_rightmost"]
    rows.append(["Lozi, rightmost point of the unstable manifold", power(found["error"])])
    header = ["quantity", "error"]
    return markdown(header, rows) + "\n\n" + source("geometry", "manifolds")


TABLES = {
    table.__name__: table
    for table in (
        coverage,
        literature,
        gallery,
        hierarchy,
        windows,
        known_values,
        training,
        memories,
        networks,
        piecewise,
        reconstruction,
    )
}
