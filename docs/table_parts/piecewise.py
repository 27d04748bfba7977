"""Rows of docs/validation.md on piecewise-linear networks, reconstruction and the gallery."""

from statistics import median

from .claims import claim, span, table
from .common import digits, power, read, with_error
from .reconstruction import is_chaotic


def piecewise() -> str:
    rows = [*_orbits(), *_manifolds(), *_reconstruction(), *_flow_and_gallery()]
    names = ("piecewise_orbits", "manifolds", "reconstruction", "reconstruction_seeds")
    return table(rows, *names, "event_flow", "gallery")


def _orbits() -> list[list[str]]:
    data = read("piecewise_orbits")
    found = data["rows"]
    cycles = [(row["cycles"], row["expected_cycles"]) for row in found]
    absent = sum(row["absent_cycles"] for row in found)
    errors = [row["fixed_point_error"] for row in found]
    moduli = [max(row["moduli_error"], row["leading_moduli_error"]) for row in found]
    return [
        claim(
            "Fixed points and cycles of five maps of the plane, and orders without cycles.",
            "Eisenmann, Monfared, Göring & Durstewitz (2023)",
            f"points agree to {power(max(errors))} and moduli to {power(max(moduli))}, the last digit "
            f"published; {sum(a for a, _ in cycles)} of {sum(b for _, b in cycles)} cycles, residual "
            f"below {power(max(row['largest_residual'] for row in found))}; the absences are certified "
            "by all words that a state can follow",
            "benchmarks/piecewise_orbits.py",
            "reproduced: and certified",
            when=all(a == b for a, b in cycles)
            and absent == 0
            and all(row["absence_is_certified"] and row["is_complete"] for row in found),
        ),
        claim(
            "A search from random words finds them.",
            "Eisenmann, Monfared, Göring & Durstewitz (2023)",
            f"{data['recall']['found']} of {data['recall']['cycles']} from {data['recall']['starts']} "
            "starts",
            "benchmarks/piecewise_orbits.py",
            "reproduced",
            when=data["recall"]["found"] == data["recall"]["cycles"],
        ),
    ]


def _manifolds() -> list[list[str]]:
    data = read("manifolds")
    border, chaotic = data["basin_boundary"], data["systems"]["chaotic"]
    value = data["exponents"]["chaotic"][0], data["exponents"]["chaotic_standard_error"][0]
    qualities = {
        f"{kind} manifold of “{name}”": found[f"quality_of_{kind}"]
        for name, found in data["systems"].items()
        for kind in ("stable", "unstable")
    }
    low = min(qualities, key=lambda name: qualities[name])
    others = [v for name, v in qualities.items() if name != low]
    paper = "Eisenmann, Brändle, Monfared & Durstewitz (2025)"
    script = "benchmarks/manifolds.py"
    return [
        claim(
            "Stable manifolds are the boundaries of basins.",
            paper,
            f"the border between two starts with different fates lies on the manifold in "
            f"{100 * border['within_1e-9']:.0f} % of {border['pairs_of_starts']} pairs, to "
            f"{power(border['largest_distance'])}",
            script,
            "reproduced",
            when=border["within_1e-9"] == 1,
        ),
        claim(
            "Homoclinic points show chaos.",
            paper,
            f"{chaotic['crossings']} crossings within a length of {chaotic['max_length']:.0f}, and λ1 = "
            f"{with_error(*value)}; none in the map “two attractors”",
            script,
            "reproduced",
            when=chaotic["crossings"] > 0 and data["systems"]["two attractors"]["crossings"] == 0,
        ),
        claim(
            "The quality statistic of a manifold is near 1 (0.98 for a map of the plane).",
            paper,
            f"{span(others, 3)} for five manifolds, {qualities[low]:.2f} for the {low}",
            script,
            "refined: it fails for a manifold whose images are exact to rounding",
            when=min(others) > 0.99 and qualities[low] < 0.5,
        ),
    ]


def _reconstruction() -> list[list[str]]:
    data = read("reconstruction")
    truth = {row["points"]: row["median"] for row in data["truth_against_itself"]}[100000]
    script, more_seeds = "benchmarks/reconstruction.py", "benchmarks/reconstruction_seeds.py"

    def divergence(models):
        return median(model["state_space_divergence"] for model in models)

    def chaotic(models):
        return [model for model in models if is_chaotic(model)]

    def numbers(models):
        found = chaotic(models)
        return (
            f"{len(found)} of {len(models)} networks are chaotic, λ1 {span([m['exponents'][0] for m in found])}"
            f" (truth 0.906), λ3 {span([m['exponents'][2] for m in found], 1)} (truth -14.6), dimension "
            f"{span([m['kaplan_yorke_dimension'] for m in found])} (truth 2.062), divergence "
            f"{span([m['state_space_divergence'] for m in found])} (data against themselves {truth:.2f})"
        )

    linear = data["almost_linear"]["models"]
    seeds = read("reconstruction_seeds")
    more_linear, shallow, eeg = (seeds[k]["models"] for k in ("almost_linear", "shallow", "eeg"))
    terms = {
        weight: [m["state_space_divergence"] for m in found["models"]]
        for weight, found in data["spectrum_term_shallow"].items()
    }
    own = data["eeg"]["first_seconds_against_test"]["state_space_divergence"]
    return [
        claim(
            "AL-RNNs with two rectified units reconstruct Lorenz-63.",
            "Brenner, Hemmer, Monfared & Durstewitz (2024)",
            numbers(linear),
            script,
            "refined: chaos, but not its strength, and the contraction is several times too weak",
            when=len(chaotic(linear)) == 4 and all(m["exponents"][2] > -3 for m in chaotic(linear)),
        ),
        claim(
            "Two rectified units are enough for Lorenz-63.",
            "Brenner, Hemmer, Monfared & Durstewitz (2024)",
            "with ten: " + numbers(more_linear),
            more_seeds,
            "refined: for its topology; ten give its shape, exponents and dimension too",
            when=len(chaotic(more_linear)) >= 8
            and divergence(more_linear) < 1 < divergence(linear),
        ),
        claim(
            "Shallow networks with generalized teacher forcing reconstruct Lorenz-63.",
            "Hess, Monfared, Brenner & Durstewitz (2023)",
            numbers(shallow),
            more_seeds,
            "reproduced: λ1 and the dimension, nearly; λ3 scatters",
            when=len(chaotic(shallow)) >= 9 and divergence(shallow) < 0.5,
        ),
        claim(
            "Shallow networks reconstruct an EEG.",
            "Hess, Monfared, Brenner & Durstewitz (2023)",
            "λ1 per second "
            + ", ".join(with_error(m["exponents"][0], m["standard_error"][0]) for m in eeg)
            + f"; divergence {span([m['state_space_divergence'] for m in eeg])} (data {own:.2f})",
            more_seeds,
            "open: the free runs differ from the data more than these do from themselves",
            when=divergence(eeg) > own,
        ),
        claim(
            "A term of the loss that asks for the right exponents improves a reconstruction.",
            "(our question)",
            "divergence of three shallow networks by the weight of the term: "
            + "; ".join(
                f"{weight}: {', '.join(digits(v) for v in found)}"
                for weight, found in terms.items()
            ),
            script,
            "refuted: for this term",
            when=max(terms["0.0"]) < 0.3 and max(terms["0.003"]) > 1 and min(terms["0.03"]) > 1,
        ),
    ]


def _flow_and_gallery() -> list[list[str]]:
    flows = read("event_flow")["rows"]
    errors = [row["error"] for row in flows.values()]
    lorenz = read("gallery")["rows"]["Lorenz"]
    value, error = lorenz["exponents"][0], lorenz["standard_error"][0]
    return [
        claim(
            "A piecewise-linear network in continuous time can be solved exactly from switch to switch.",
            "Monfared & Durstewitz (2020)",
            f"error over 200 samples of {len(flows)} systems at most {power(max(errors))}, against a "
            "solution in extended precision",
            "benchmarks/event_flow.py",
            "reproduced",
            when=max(errors) < 1e-11,
        ),
        claim(
            "The largest exponents that dysts stores with its systems.",
            "Gilpin (2021)",
            f"Lorenz: stored 1.09, ours {with_error(value, error)}; more than 30 of its flows are off by "
            "half of the stored value or more (`tests/test_interop_dysts.py`)",
            "benchmarks/gallery.py",
            "refuted: they are rough",
            when=abs(value - 1.09) > 10 * error,
        ),
    ]
