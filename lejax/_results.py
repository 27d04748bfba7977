"""What only the numbers show: the status of a run."""

import equinox as eqx


class RESULTS(eqx.Enumeration):
    """The statuses a run can end with; `RESULTS[result]` is the sentence that belongs to one."""

    successful = "The run succeeded."
    nonfinite = (
        "The run left the floating-point numbers: the state or its tangent became NaN or infinite."
    )
    interval_too_long = (
        "Too many steps between orthonormalizations: the lower exponents are rounding noise. "
        "Use a smaller SequentialQR(every=...); suggest_qr_interval finds the largest that serves. "
        "If the Jacobian is singular only every=1 or fewer exponents will do."
    )
