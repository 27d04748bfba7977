"""Tasks that ask for memory: sequences drawn from a key."""

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
    """Some symbols, a delay, then they are to be repeated.

    **Arguments:** `num_sequences` n; `length` symbols out of `num_symbols`; `delay` blank steps, of which the last
    is the signal to begin.

    **Returns:** `Examples` of 2 `length` + `delay` steps and `num_symbols` + 2 inputs (the symbols, blank, the
    signal); only the last `length` steps count.

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
    wait = jnp.full((num_sequences, delay), blank).at[:, -1].set(signal)
    shown = jnp.concatenate([symbols, wait, jnp.full_like(symbols, blank)], axis=1)
    silence = jnp.zeros((num_sequences, length + delay), symbols.dtype)
    targets = jnp.concatenate([silence, symbols], axis=1)
    inputs = jax.nn.one_hot(shown, num_symbols + 2, dtype=dtype or jnp.result_type(float))
    weights = jnp.zeros(shown.shape, inputs.dtype).at[:, length + delay :].set(1)
    return Examples(inputs, targets, weights, num_symbols)


@checked
def adding_task(key: PRNGKeyArray, num_sequences: int, *, num_steps: int, dtype=None) -> Examples:
    """Two of the numbers are marked; after the last step their sum is to be given.

    **Arguments:** `num_sequences` n; `num_steps` T, at least 2.

    **Returns:** `Examples` with 2 inputs: a number from U(0, 1), and a mark at one step of the first half and one of
    the second. Always to answer 1 has a mean squared error of 1/6.

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
    total = jnp.sum(numbers * marks, axis=1)
    targets = jnp.broadcast_to(total[:, None, None], (*shape, 1))
    inputs = jnp.stack([numbers, marks], axis=-1)
    return Examples(inputs, targets, last_step(*shape, numbers.dtype), 1)


@checked
def delayed_xor_task(
    key: PRNGKeyArray, num_sequences: int, *, num_steps: int, delay: int, dtype=None
) -> Examples:
    r"""Whether the bits of d and of 2d steps ago differ, $y_t = s_{t-d} \oplus s_{t-2d}$.

    **Arguments:** `num_sequences` n; `num_steps` T, more than 2 `delay`.

    **Returns:** `Examples` of fair bits with 1 input and 2 classes; steps before 2d do not count.

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
    counted = (jnp.arange(shape[1]) >= 2 * delay).astype(inputs.dtype)
    return Examples(inputs, targets, jnp.broadcast_to(counted, shape), 2)


@checked
def modular_counting_task(
    key: PRNGKeyArray, num_sequences: int, *, num_steps: int, modulus: int, dtype=None
) -> Examples:
    r"""How many ones there were so far, $y_t = \sum_{s \le t} u_s \bmod m$.

    **Arguments:** `num_sequences` n; `num_steps` T; `modulus` m, the number of classes.

    **Returns:** `Examples` of fair bits with 1 input; every step counts.

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
    """Whether the number of ones so far is odd: `modular_counting_task` with m = 2.

    !!! example

        >>> import jax, lejax
        >>> lejax.populations.parity_task(jax.random.key(0), 5, num_steps=30).num_outputs
        2

    Minsky & Papert, Perceptrons (1969).
    """
    return modular_counting_task(key, num_sequences, num_steps=num_steps, modulus=2, dtype=dtype)
