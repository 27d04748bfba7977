"""The tables of docs/how-to/accelerators.md: spectra in float32 beside float64."""

import math

from .common import digits, markdown, power, read, source, with_error


def pair(values: dict[str, float]) -> str:
    """A number in float64 and in float32."""
    return " / ".join(digits(values[dtype]) for dtype in ("float64", "float32"))


def intervals(of: dict) -> str:
    return " / ".join(str(of["longest_interval"][dtype]) for dtype in ("float64", "float32"))


def value_of(value: float, error: float) -> str:
    """A number with its error, or with the six digits that were kept."""
    return with_error(value, error) if error > 1e-6 else digits(value, 6)


def float32_chaotic() -> str:
    rows = []
    for row in read("float32")["chaotic"]:
        values, errors = row["exponents"], row["standard_error"]
        first = [value_of(values[d][0], errors[d][0]) for d in ("float64", "float32")]
        joint = math.hypot(*(errors[d][0] for d in ("float64", "float32")))
        apart = digits(abs(row["difference"][0]) / joint)
        apart_sums = "-" if None in row["difference"] else power(abs(sum(row["difference"])))
        cells = [*first, apart, apart_sums, power(max(row["rounding_error"]))]
        cells += [_periods(row), intervals(row), pair(row["microseconds_a_step"])]
        rows.append([row["problem"], *cells])
    header = ["system", "λ1, float64", "λ1, float32", "apart, in errors", "difference of the sums"]
    header += ["reported", "period in float32", "longest interval, 64 / 32", "µs a step, 64 / 32"]
    return markdown(header, rows) + "\n\n" + source("float32")


def _periods(row: dict) -> str:
    if "periods" not in row:
        return ""
    known = sorted({period for period in row["periods"] if period})
    text = [f"{period}" for period in known] + ["none found"] * (0 in row["periods"])
    return ", ".join(text)


def float32_settled() -> str:
    rows = []
    for row in read("float32")["settled"]:
        for method in ("adaptive", "every step"):
            of = row[method]
            resolved = [i for i, is_resolved in enumerate(of["resolved"]) if is_resolved]
            errors = [abs(of["difference"][i]) for i in resolved]
            reported = [of["rounding_error"][i] for i in resolved]
            # One unit in the last place of a number near 1 is in every logarithm.
            ratio = max(e / (r + 1.2e-7) for e, r in zip(errors, reported, strict=True))
            cells = [
                f"{len(resolved)} of {len(of['resolved'])}",
                power(sorted(errors)[len(errors) // 2]),
            ]
            cells += [power(max(errors)), power(max(reported)), digits(ratio)]
            cells += [intervals(of), pair(of["microseconds_a_step"])]
            rows.append([row["problem"], method, *cells])
    header = ["network", "orthonormalized", "resolved", "median error", "largest error"]
    header += ["largest reported", "error / (reported + eps)", "longest interval, 64 / 32"]
    header += ["µs a step, 64 / 32"]
    return markdown(header, rows, 2) + "\n\n" + source("float32")


def float32_parts() -> str:
    rows = []
    for row in read("float32")["parts"]:
        for statistic in ("median", "largest"):
            cells = [power(part[statistic]) for part in row["parts"].values()]
            rows.append([row["problem"], statistic, *cells, power(row["all"][statistic])])
    header = [
        "network",
        "of the exponents",
        *read("float32")["parts"][0]["parts"],
        "all, compensated",
    ]
    return markdown(header, rows, 2) + "\n\n" + source("float32")
