"""What only the numbers show: the status of a run."""

import equinox as eqx


class RESULTS(eqx.Enumeration):
    """The statuses a run can end with: `successful`, `nonfinite`, `interval_too_long`, `overlap_too_short`, `exponents_ascend`.

    `spectrum.result == RESULTS.successful` compares, under `jit` and `vmap` too; `RESULTS[spectrum.result]` is the sentence that
    belongs to one.
    """

    successful = "The run succeeded."
    nonfinite = (
        "The run left the floating-point numbers: the state or its tangent became NaN or infinite."
    )
    interval_too_long = (
        "Too many steps between orthonormalizations: the lower exponents are rounding noise. "
        "Use a smaller SequentialQR(every=...), or none: SequentialQR() adapts it. "
        "If the Jacobian is singular only every=1 or fewer exponents will do."
    )
    overlap_too_short = (
        "The chunks of ParallelQR had not forgotten their starting frames: the exponents are biased by more than "
        "twice their standard error. Use a larger overlap or fewer chunks; on a fixed point or a limit cycle frames "
        "may rotate for ever and only SequentialQR will do."
    )
    exponents_ascend = (
        "Exponents ascend by more than four standard errors: directions that should have taken the lead were lost "
        "in rounding, as happens where parts of the state drive others and have nearly equal exponents. Declare such parts "
        "as a lejax.cells.Stack or a BlockTriangularCell, or write the step so that FoundBlocks can tell them apart. "
        "If the errors are too small, the run was too short or its transient too."
    )
