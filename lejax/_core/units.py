"""Names of units for axes, tables and files."""

from jaxtyping import Array, Float


def units(dt: float | Float[Array, ""]) -> str:
    """The unit of the exponents of a run whose steps last `dt`."""
    return "nats per step" if float(dt) == 1 else "nats per unit time"
