"""Exponents by plain NumPy: full Jacobians of a step as an opaque function, and a QR decomposition at each step."""

import jax
import numpy as np
from jax.flatten_util import ravel_pytree


def random_frame(size, num_exponents):
    """Orthonormal columns (size, num_exponents)."""
    return np.linalg.qr(np.random.default_rng(0).normal(size=(size, num_exponents)))[0]


def dense_exponents(step, state, inputs, num_exponents, transient=0):
    """Leading exponents (k,) of `step(input, state) -> state`, in the order of the columns of a random frame.

    An integer for `inputs` is a number of steps without input. The first steps, `transient`, are not counted.
    """
    vector, unravel = ravel_pytree(state)

    @jax.jit
    def advance(input, vector):
        def move(vector):
            new = ravel_pytree(step(input, unravel(vector)))[0]
            return new, new

        jacobian, new = jax.jacfwd(move, has_aux=True)(vector)
        return new, jacobian

    inputs = [None] * inputs if isinstance(inputs, int) else list(inputs)
    frame, sums = random_frame(vector.size, num_exponents), np.zeros(num_exponents)
    for t, input in enumerate(inputs):
        vector, jacobian = advance(input, vector)
        frame, triangle = np.linalg.qr(np.asarray(jacobian) @ frame)
        if t >= transient:
            sums += np.log(np.abs(np.diag(triangle)))
    return sums / (len(inputs) - transient)
