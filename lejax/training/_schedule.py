"""When to floss: before training, and again and again during it."""

import equinox as eqx

from .._core.check_values import check_count


class FlossingSchedule(eqx.Module):
    """How many flossing updates are due before a training step.

    **Arguments:**

    - `before`: updates before the first step.
    - `every`: the steps between two flossings during training; `None` for flossing before training only.
    - `updates`: updates at each of these.
    - `until`: the step from which on there is none; `None` for never.

    The defaults did best of eleven ways to spend the same compute on the delayed XOR at a delay of 15 (`benchmarks/
    flossing.py`: median accuracy .87 of 8 networks; flossed before training only .70, not at all .51), with runs of 28
    steps of which 20 count, and 30 of 32 exponents.

    Called with the number of a training step, a Python integer, it returns the number of updates, for `floss`.

    !!! example

        >>> import lejax
        >>> schedule = lejax.training.FlossingSchedule(before=300, every=100, updates=20, until=300)
        >>> [(step, schedule(step)) for step in range(1000) if schedule(step)]
        [(0, 300), (100, 20), (200, 20)]

    Engelken, Advances in Neural Information Processing Systems 36 (2023).
    """

    before: int = eqx.field(
        static=True, converter=lambda count: check_count("before", count, 0), default=300
    )
    every: int | None = eqx.field(
        static=True,
        converter=lambda count: None if count is None else check_count("every", count, 1),
        default=100,
    )
    updates: int = eqx.field(
        static=True, converter=lambda count: check_count("updates", count, 0), default=30
    )
    until: int | None = eqx.field(
        static=True,
        converter=lambda count: None if count is None else check_count("until", count, 0),
        default=1100,
    )

    def __check_init__(self):
        if self.until is not None:
            check_count("until", self.until, 0)

    def __call__(self, step: int) -> int:
        if step == 0:
            return self.before
        ended = self.until is not None and step >= self.until
        return 0 if ended or self.every is None or step % self.every else self.updates
