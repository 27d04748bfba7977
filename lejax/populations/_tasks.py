"""Tasks that need memory, with sequences drawn from a key."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from .._core.check_annotations import checked
from .._core.check_values import check_count
from ._examples import Examples, last_step


@checked
def copy_task(
    key: PRNGKeyArray,
    num_sequences: int,
    *,
    num_symbols: int = 8,
    length: int = 10,
    delay: int,
    dtype=None,
) -> Examples:
    """Repeat a sequence of symbols after a delay.

    **Arguments:**

    - `key`: draws the symbols.
    - `num_sequences`: n.
    - `num_symbols`: size of the alphabet, 8 by default.
    - `length`: number of symbols to repeat, 10 by default.
    - `delay`: number of blank steps in between. At the last of them the input is the signal to begin.
    - `dtype`: of inputs and weights, by default that of JAX.

    **Returns:** `Examples` of 2 `length` + `delay` steps and `num_symbols` + 2 inputs, one-hot (the symbols, the blank,
    the signal). Only the last `length` steps count.

    !!! example

        >>> import jax, lejax
        >>> lejax.populations.copy_task(jax.random.key(0), 5, delay=20).inputs.shape
        (5, 40, 10)

    Hochreiter & Schmidhuber, Neural Computation 9 (1997); Arjovsky, Shah & Bengio, ICML (2016).
    """
    num_sequences = check_count("num_sequences", num_sequences, 1)
    num_symbols = check_count("num_symbols", num_symbols, 2)
    length, delay = check_count("length", length, 1), check_count("delay", delay, 1)
    blank, signal = num_symbols, num_symbols + 1
    symbols = jr.randint(key, (num_sequences, length), 0, num_symbols)
    blanks = jnp.full((num_sequences, delay), blank).at[:, -1].set(signal)
    sequence = jnp.concatenate([symbols, blanks, jnp.full_like(symbols, blank)], axis=1)
    no_targets = jnp.zeros((num_sequences, length + delay), symbols.dtype)
    targets = jnp.concatenate([no_targets, symbols], axis=1)
    inputs = jax.nn.one_hot(sequence, num_symbols + 2, dtype=dtype or jnp.result_type(float))
    weights = jnp.zeros(sequence.shape, inputs.dtype).at[:, length + delay :].set(1)
    return Examples(inputs, targets, weights, num_symbols)


@checked
def adding_task(key: PRNGKeyArray, num_sequences: int, *, num_steps: int, dtype=None) -> Examples:
    r"""Add the two marked numbers of a sequence; only the answer after the last step counts.

    $$y_T = u_j + u_k, \quad u_t \sim U(0, 1)$$

    **Arguments:**

    - `key`: draws the numbers u and the marked steps j and k.
    - `num_sequences`: n.
    - `num_steps`: T, at least 2.
    - `dtype`: of inputs, targets and weights, by default that of JAX.

    **Returns:** `Examples` with 2 inputs, the number $u_t$ and a mark: 1 at step j of the first half and at step
    k of the second. The constant answer 1 has a mean squared error of 1/6.

    !!! example

        >>> import jax, lejax
        >>> lejax.populations.adding_task(jax.random.key(0), 5, num_steps=30).targets.shape
        (5, 30, 1)

    Hochreiter & Schmidhuber, Neural Computation 9 (1997).
    """
    shape = (
        check_count("num_sequences", num_sequences, 1),
        check_count("num_steps", num_steps, 2),
    )
    key_numbers, key_first, key_second = jr.split(key, 3)
    numbers = jr.uniform(key_numbers, shape, dtype or jnp.result_type(float))
    half = shape[1] // 2
    first = jr.randint(key_first, shape[:1], 0, half)
    second = jr.randint(key_second, shape[:1], half, shape[1])
    steps = jnp.arange(shape[1])
    marks = ((steps[None] == first[:, None]) | (steps[None] == second[:, None])).astype(
        numbers.dtype
    )
    sums = jnp.sum(numbers * marks, axis=1)
    targets = jnp.broadcast_to(sums[:, None, None], (*shape, 1))
    inputs = jnp.stack([numbers, marks], axis=-1)
    return Examples(inputs, targets, last_step(*shape, numbers.dtype), 1)


@checked
def delayed_xor_task(
    key: PRNGKeyArray, num_sequences: int, *, num_steps: int, delay: int, dtype=None
) -> Examples:
    r"""Say whether the bits of d and of 2d steps ago differ.

    $$y_t = s_{t-d} \oplus s_{t-2d}$$

    **Arguments:**

    - `key`: draws the bits s.
    - `num_sequences`: n.
    - `num_steps`: T, more than 2 `delay`.
    - `delay`: d.
    - `dtype`: of inputs and weights, by default that of JAX.

    **Returns:** `Examples` of fair bits with 1 input and 2 classes. Steps before 2d do not count.

    **Raises:**

    - `ValueError`: if the sequence is not longer than 2 `delay`.

    !!! example

        >>> import jax, lejax
        >>> lejax.populations.delayed_xor_task(jax.random.key(0), 5, num_steps=60, delay=10).inputs.shape
        (5, 60, 1)

    Engelken, NeurIPS (2023).
    """
    delay = check_count("delay", delay, 1)
    shape = (
        check_count("num_sequences", num_sequences, 1),
        check_count("num_steps", num_steps, 1),
    )
    if shape[1] <= 2 * delay:
        raise ValueError(
            f"num_steps is {shape[1]}, but a delay of {delay} needs more than {2 * delay}."
        )
    bits = jr.bernoulli(key, shape=shape)
    targets = (jnp.roll(bits, delay, axis=1) ^ jnp.roll(bits, 2 * delay, axis=1)).astype(jnp.int32)
    inputs = bits[..., None].astype(dtype or jnp.result_type(float))
    weights = (jnp.arange(shape[1]) >= 2 * delay).astype(inputs.dtype)
    return Examples(inputs, targets, jnp.broadcast_to(weights, shape), 2)


@checked
def modular_counting_task(
    key: PRNGKeyArray, num_sequences: int, *, num_steps: int, modulus: int, dtype=None
) -> Examples:
    r"""Count the ones so far, modulo m.

    $$y_t = \sum_{s \le t} u_s \bmod m$$

    **Arguments:**

    - `key`: draws the bits u.
    - `num_sequences`: n.
    - `num_steps`: T.
    - `modulus`: m, the number of classes, at least 2.
    - `dtype`: of inputs and weights, by default that of JAX.

    **Returns:** `Examples` of fair bits with 1 input. Every step counts.

    !!! example

        >>> import jax, lejax
        >>> task = lejax.populations.modular_counting_task(jax.random.key(0), 5, num_steps=30, modulus=3)
        >>> int(task.targets.max())
        2

    Deletang et al., ICLR (2023).
    """
    shape = (
        check_count("num_sequences", num_sequences, 1),
        check_count("num_steps", num_steps, 1),
    )
    modulus = check_count("modulus", modulus, 2)
    bits = jr.bernoulli(key, shape=shape)
    targets = jnp.cumsum(bits, axis=1, dtype=jnp.int32) % modulus
    inputs = bits[..., None].astype(dtype or jnp.result_type(float))
    return Examples(inputs, targets, jnp.ones(shape, inputs.dtype), modulus)


@checked
def parity_task(key: PRNGKeyArray, num_sequences: int, *, num_steps: int, dtype=None) -> Examples:
    r"""Say whether the number of ones so far is odd: `modular_counting_task` with m = 2.

    $$y_t = \sum_{s \le t} u_s \bmod 2$$

    **Arguments:**

    - `key`: draws the bits u.
    - `num_sequences`: n.
    - `num_steps`: T.
    - `dtype`: of inputs and weights, by default that of JAX.

    **Returns:** `Examples` of fair bits with 1 input and 2 classes. Every step counts.

    !!! example

        >>> import jax, lejax
        >>> lejax.populations.parity_task(jax.random.key(0), 5, num_steps=30).num_outputs
        2

    Minsky & Papert, Perceptrons (1969).
    """
    return modular_counting_task(key, num_sequences, num_steps=num_steps, modulus=2, dtype=dtype)
