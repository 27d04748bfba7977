"""The schedule of gradient flossing: updates before training, and in regular intervals during training."""

import equinox as eqx

from .._core.check_values import check_count


class FlossingSchedule(eqx.Module):
    """The number of flossing updates before each training step.

    Called with the index of a training step, a Python integer, it returns the number of updates for `floss`.

    **Arguments:**

    - `before`: the updates before the first step, 300 by default.
    - `every`: the training steps between two flossings during training, 100 by default; `None` for flossing only before
        training.
    - `updates`: the updates of each flossing during training, 30 by default.
    - `until`: the training step from which on there is no flossing, 1100 by default; `None` for no end.

    **Raises:**

    - `ValueError`: if a number is negative or `every` is below 1.

    **Numerics:** the defaults were the best of eleven schedules with the same compute on the delayed XOR with a delay
    of 15, for runs of 28 steps of which 20 count, and 30 of 32 exponents. The median accuracy of 8 networks is 0.87,
    with flossing only before training 0.70, without flossing 0.51 (`benchmarks/flossing.py`).

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

    def __call__(self, step: int) -> int:
        if step == 0:
            return self.before
        ended = self.until is not None and step >= self.until
        return 0 if ended or self.every is None or step % self.every else self.updates
