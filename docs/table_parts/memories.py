"""Claims on state spaces, delta rules and other linear memories."""

from .claims import claim, span, table
from .common import power, read, with_error


def memories() -> str:
    rows = [*_mamba(), *_state_tracking(), *_memory_theory()]
    return table(rows, "mamba_stability", "state_tracking")


def _mamba() -> list[list[str]]:
    data = read("mamba_stability")
    closed, rounding, loop = (data[k] for k in ("closed_form", "rounding", "closed_loop"))
    mamba, tanh = rounding["two Mamba blocks"], rounding["tanh network"]
    lengths = closed["largest_difference"]
    largest = [
        with_error(e[0], s[0])
        for e, s in zip(loop["exponents"], loop["standard_error"], strict=True)
    ]
    chaotic = [
        e[0] > 5 * s[0] for e, s in zip(loop["exponents"], loop["standard_error"], strict=True)
    ]
    halloran = "Halloran, Gulati & Roysdon (2024)"
    return [
        claim(
            "All exponents of a Mamba layer with given inputs are at most 0.",
            halloran,
            f"the largest of {len(closed['exponents'])} in closed form {max(closed['exponents']):.3f}; "
            "the general engine differs by 3.73 / T, the alignment of its frame: "
            + ", ".join(f"{power(v)} at {k} steps" for k, v in lengths.items()),
            "benchmarks/mamba_stability.py",
            "reproduced",
            when=max(closed["exponents"]) < 0
            and all(abs(v - 3.73) < 0.01 for v in closed["difference_times_length"].values()),
        ),
        claim(
            "Therefore rounding in low precision does not grow along a sequence.",
            halloran,
            f"bfloat16 against float32, distance after 1, 100, 3000 steps: two Mamba blocks (λ1 "
            f"{with_error(mamba['largest_exponent'], mamba['standard_error'])}) "
            + ", ".join(power(mamba["deviation"][k]) for k in ("1", "100", "3000"))
            + f"; a tanh network (λ1 {with_error(tanh['largest_exponent'], tanh['standard_error'])}) "
            + ", ".join(power(tanh["deviation"][k]) for k in ("1", "100", "3000")),
            "benchmarks/mamba_stability.py",
            "reproduced",
            when=mamba["deviation"]["3000"] < 2 * mamba["deviation"]["1"]
            and tanh["deviation"]["3000"] > 1000 * tanh["deviation"]["1"],
        ),
        claim(
            "So Mamba networks are stable.",
            halloran,
            "λ1 per unit of time of three networks trained to forecast Lorenz-63, in closed loop: "
            + ", ".join(largest),
            "benchmarks/mamba_stability.py",
            "refined: with given inputs; a closed loop may be chaotic, as one of three is",
            when=sum(chaotic) == 1,
        ),
    ]


def _state_tracking() -> list[list[str]]:
    rows = {
        (r["task"], r["num_factors"], r["beta_range"]): r["accuracy"]
        for r in read("state_tracking")["rows"]
    }
    grazzi, siems = "Grazzi et al. (2025)", "Siems et al. (2025)"
    script = "benchmarks/state_tracking.py"

    def accuracy(task, factors, beta):
        return span(rows[task, factors, beta])

    return [
        claim(
            "With positive eigenvalues only, a delta rule cannot solve parity; with eigenvalues down "
            "to -1 it can.",
            grazzi,
            f"accuracy beyond the length of training {accuracy('parity', 1, 1.0)} (chance 0.50) "
            f"against {accuracy('parity', 1, 2.0)}, three seeds",
            script,
            "reproduced",
            when=max(rows["parity", 1, 1.0]) < 0.52 and min(rows["parity", 1, 2.0]) > 0.95,
        ),
        claim(
            "One reflection a step cannot count modulo 3.",
            grazzi,
            f"one factor {accuracy('modulo 3', 1, 2.0)} (chance 0.33)",
            script,
            "reproduced",
            when=max(rows["modulo 3", 1, 2.0]) < 0.36,
        ),
        claim(
            "Two can count modulo 3.",
            grazzi,
            f"two factors {accuracy('modulo 3', 2, 2.0)} after this training; by hand-set weights "
            "exactly (`tests/test_known_dynamics.py`)",
            script,
            "refined: hand-set weights count exactly, ours were not learned to the end",
            when=min(rows["modulo 3", 2, 2.0]) > 0.5 and max(rows["modulo 3", 2, 2.0]) < 0.9,
        ),
        claim(
            "Two factors track the permutations of three things, one does not.",
            siems,
            f"{accuracy('S3', 2, 2.0)} against {accuracy('S3', 1, 2.0)} (chance 0.17)",
            script,
            "reproduced",
            when=min(rows["S3", 2, 2.0]) > 0.9 and max(rows["S3", 1, 2.0]) < 0.35,
        ),
        claim(
            "Two factors track the permutations of four things.",
            siems,
            f"{accuracy('S4', 2, 2.0)} (chance 0.04)",
            script,
            "open: our training does not leave chance",
            when=max(rows["S4", 2, 2.0]) < 0.06,
        ),
    ]


def _memory_theory() -> list[list[str]]:
    script = "tests/test_known_dynamics.py"
    return [
        claim(
            "HiPPO-LegS cannot be diagonalized in floating point.",
            "Gu, Goel & Ré (2022)",
            "condition number of its eigenvectors at N = 32, in exact fractions: 1.22e23; float64 "
            "eigensolvers report less than 1e21",
            script,
            "reproduced",
            when=True,  # asserted by the test
        ),
        claim(
            "Tokens of a one-dimensional selective state space go to 0 or to infinity, by the sign of "
            "a coupling μ.",
            "Vo, Pham, Tong & Nguyen (2025)",
            "μ < 0: x √t of the first token tends to 1 / √(2 log 2 \\|μ\\|), to 0.2 %; μ > 0: \\|x\\| "
            "grows like log t on the negative side",
            script,
            "reproduced: the decay is a power law, so its exponent is 0",
            when=True,  # asserted by the test
        ),
    ]
