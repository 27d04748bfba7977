"""Dynamics of noise-driven networks that emulate hidden Markov models: fixed points, noise-sustained orbits, exponents.

Vanilla RNNs of 32 units receive 8 numbers of Gaussian noise at each step, and a linear readout gives the probabilities
of three symbols. They are trained (Adam, 3 seeds) on the pair statistics of chains of two and three states in a row
that stay in their state with probability 0.95: the probabilities of all pairs of symbols at lags of 1 to 64 steps,
which are known exactly for the chain. The loss is the product of the deviations in two halves of a batch, whose mean is
the squared deviation without the variance of the estimates. Then, in float64:

- emulation: the total variation between words of 5 symbols drawn from the network and from the chain, beside that
  between two runs of the chain, and the mean time for which the likeliest symbol stays, in both;
- without noise: fixed points found from states that the network visits, how many of them are stable, how many different
  responses to silence 8 of these states have after 20 000 steps, and the largest exponent there;
- under noise: the spectrum, how many exponents lie within 3 standard errors of 0, and the number of responses of 8
  states to the same noise;
- radius (root mean square distance from the mean state) and largest exponent against the standard deviation of the
  noise.

python benchmarks/hidden_markov.py [--toy] [--json FILE]

After Torre, Viscione, Pompe, Grewe & Mante, NeurIPS (2025), who train on distributions of sequences instead.
"""

import functools
import operator
import time

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import lejax
from lejax.cells import RNNCell


STAY, CLARITY = 0.95, 0.98
LAGS = (1, 2, 4, 8, 16, 32, 64)
BURN_IN, NUM_INPUTS, SYMBOLS, WORD = 50, 8, 3, 5
SCALES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def chain(num_states):
    """Transitions between neighbors in a row, emissions, and the stationary distribution."""
    near = np.eye(num_states, k=1) + np.eye(num_states, k=-1)
    A = STAY * np.eye(num_states) + (1 - STAY) * near / near.sum(axis=1, keepdims=True)
    symbols = [0, 2] if num_states == 2 else [0, 1, 2]
    rest = (1 - CLARITY) / (SYMBOLS - 1)
    B = np.where(np.arange(SYMBOLS) == np.array(symbols)[:, None], CLARITY, rest)
    values, vectors = np.linalg.eig(A.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    return A, B, stationary / stationary.sum()


def pair_statistics(A, B, stationary):
    start = stationary[:, None] * B
    return np.array([start.T @ np.linalg.matrix_power(A, lag) @ B for lag in LAGS])


def sample_chain(key, A, B, stationary, num_steps):
    first, key_state, key_symbol = jr.split(key, 3)
    log_A, log_B = jnp.log(jnp.maximum(A, 1e-30)), jnp.log(B)

    def step(state, key):
        return jr.categorical(key, log_A[state]), state

    start = jr.categorical(first, jnp.log(stationary))
    states = jax.lax.scan(step, start, jr.split(key_state, num_steps))[1]
    return jr.categorical(key_symbol, log_B[states])


class Emulator(eqx.Module):
    cell: RNNCell
    readout: eqx.nn.Linear

    def __init__(self, units, key):
        key1, key2 = jr.split(key)
        self.cell = RNNCell(NUM_INPUTS, units, dtype=jnp.float32, key=key1)
        self.readout = eqx.nn.Linear(units, SYMBOLS, dtype=jnp.float32, key=key2)

    def probabilities(self, noise):
        states = lejax.unroll(self.cell, self.cell.initial_state(), noise)
        return jax.nn.softmax(jax.vmap(self.readout)(states))


def loss(emulator, noise, targets):
    p = jax.vmap(emulator.probabilities)(noise)[:, BURN_IN:]
    halves = p.reshape(2, -1, *p.shape[1:])
    product = 0.0
    for lag, target in zip(LAGS, targets, strict=True):
        pairs = jnp.einsum("hbta,hbtc->hac", halves[:, :, :-lag], halves[:, :, lag:])
        count = halves.shape[1] * (halves.shape[2] - lag)
        product += jnp.sum(jnp.prod(pairs / count - target, axis=0))
    return product


@functools.partial(jax.jit, static_argnums=(2, 3))
def train(key, targets, units, sizes):
    """One trained emulator and its loss at each update."""
    num_updates, batch, length = sizes
    key_init, key = jr.split(key)
    parameters, static = eqx.partition(Emulator(units, key_init), eqx.is_inexact_array)
    schedule = optax.cosine_decay_schedule(3e-3, num_updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def update(carry, key):
        parameters, moments = carry
        noise = jr.normal(key, (batch, length, NUM_INPUTS), jnp.float32)
        value, gradient = jax.value_and_grad(
            lambda p: loss(eqx.combine(p, static), noise, targets)
        )(parameters)
        change, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(parameters, change), moments), value

    start = parameters, optimizer.init(parameters)
    (parameters, _), losses = jax.lax.scan(update, start, jr.split(key, num_updates))
    return parameters, losses


def words(symbols):
    """Relative frequencies of all words."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(symbols), WORD)
    codes = windows @ SYMBOLS ** np.arange(WORD)
    return np.bincount(codes, minlength=SYMBOLS**WORD) / len(codes)


def mean_stay(symbols):
    """Mean number of steps between changes of a symbol."""
    return len(symbols) / (1 + np.count_nonzero(np.diff(np.asarray(symbols))))


def analyze(emulator, model, key, num_steps):
    cell = emulator.cell
    keys = jr.split(key, 6)
    noise = jr.normal(keys[0], (num_steps, NUM_INPUTS))
    states = lejax.unroll(cell, cell.initial_state(), noise)
    logits = jax.vmap(emulator.readout)(states)[BURN_IN:]
    drawn = jr.categorical(keys[1], logits)
    hidden, other = (sample_chain(k, *model, len(drawn)) for k in keys[2:4])
    visited = states[num_steps // 2 :: max(1, num_steps // 128)]
    silence = jnp.zeros(NUM_INPUTS)
    points = lejax.orbits.find_fixed_points(cell, visited, silence)
    silent = lejax.indicators.echo_state_index(
        cell, visited[:8], jnp.zeros((num_steps, NUM_INPUTS)), transient=num_steps // 2
    )
    common = lejax.indicators.echo_state_index(
        cell, jr.uniform(keys[4], (8, cell.bias.size), minval=-1.0), noise, transient=num_steps // 2
    )
    transient = num_steps // 20
    spectrum = lejax.lyapunov_spectrum(cell, visited[0], noise, transient=transient)
    near_zero = np.abs(spectrum.exponents) < 3 * np.asarray(spectrum.standard_error)

    def scaled(scale):
        run = lejax.lyapunov_spectrum(
            cell, visited[0], scale * noise, transient=transient, num_exponents=1, throw=False
        )
        path = lejax.unroll(cell, visited[0], scale * noise)[transient:]
        spread = path - jnp.mean(path, axis=0)
        radius = jnp.sqrt(jnp.mean(jnp.sum(spread**2, axis=1)))
        return radius, run.exponents[0], run.standard_error[0]

    radii, exponents, errors = jax.lax.map(scaled, jnp.array(SCALES))
    return {
        "word_distance": 0.5 * np.abs(words(drawn) - words(hidden)).sum(),
        "word_distance_of_two_chains": 0.5 * np.abs(words(hidden) - words(other)).sum(),
        "mean_stay": mean_stay(jnp.argmax(logits, axis=1)),
        "mean_stay_of_symbols": mean_stay(drawn),
        "mean_stay_of_symbols_of_the_chain": mean_stay(hidden),
        "fixed_points": len(points.points),
        "stable_fixed_points": int(np.sum(points.stability.num_unstable == 0)),
        "silent_responses": int(silent.num_responses),
        "silent_exponent": float(jnp.max(silent.exponents)),
        "noise_responses": int(common.num_responses),
        "exponents": spectrum.exponents,
        "standard_errors": spectrum.standard_error,
        "exponents_near_zero": int(near_zero.sum()),
        "noise_scales": SCALES,
        "radius": radii,
        "largest_exponent_at_scale": exponents,
        "its_error": errors,
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    units, num_steps = (6, 400) if arguments.toy else (32, 40_000)
    sizes = (3, 4, 130) if arguments.toy else (600, 64, 250)
    clock, rows = time.perf_counter(), []
    for num_states in (2, 3):
        model = chain(num_states)
        targets = jnp.asarray(pair_statistics(*model), jnp.float32)
        keys = jr.split(jr.key(num_states), 6)
        # All seeds under one vmap.
        networks = eqx.filter_vmap(train, in_axes=(0, None, None, None))(
            keys[:3], targets, units, sizes
        )
        for seed, key in enumerate(keys[3:]):
            parameters, losses = jax.tree.map(operator.itemgetter(seed), networks)
            static = eqx.partition(Emulator(units, key), eqx.is_inexact_array)[1]
            emulator = jax.tree.map(
                lambda x: x.astype(float) if eqx.is_inexact_array(x) else x,
                eqx.combine(parameters, static),
            )
            found = analyze(emulator, model, key, num_steps)
            last = losses[-max(1, len(losses) // 20) :]
            row = {"states": num_states, "seed": seed, "loss": [losses[0], jnp.mean(last)], **found}
            rows.append(row)
            print(f"done: {num_states} states, seed {seed}", flush=True)
    header = ["states, seed", "loss", "words", "chains", "stay", "chain's", "points", "stable"]
    header += ["silent", "its exponent", "responses", "lambda_1 under noise", "near 0"]
    table = [
        [
            f"{row['states']}, {row['seed']}",
            f"{row['loss'][1]:.4f}",
            f"{row['word_distance']:.3f}",
            f"{row['word_distance_of_two_chains']:.3f}",
            f"{row['mean_stay_of_symbols']:.1f}",
            f"{row['mean_stay_of_symbols_of_the_chain']:.1f}",
            f"{row['fixed_points']}",
            f"{row['stable_fixed_points']}",
            f"{row['silent_responses']}",
            f"{row['silent_exponent']:.4f}",
            f"{row['noise_responses']}",
            f"{row['exponents'][0]:.4f} +- {row['standard_errors'][0]:.4f}",
            f"{row['exponents_near_zero']}",
        ]
        for row in rows
    ]
    print(_harness.format_table(header, table))
    print("\nradius of the orbit against the standard deviation of the noise")
    table = [
        [f"{row['states']}, {row['seed']}", *(f"{x:.2f}" for x in row["radius"])] for row in rows
    ]
    print(_harness.format_table(["states, seed", *map(str, SCALES)], table))
    _harness.write_json(
        arguments.json,
        benchmark="hidden_markov",
        toy=arguments.toy,
        seconds=time.perf_counter() - clock,
        rows=rows,
    )


if __name__ == "__main__":
    main()
