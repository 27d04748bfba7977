"""What a delta rule can count, and where exponents are blind: word problems of groups for one DeltaProduct layer.

The network reads elements of a group, all equally likely, and predicts the product of all elements so far: parity (Z2),
counting modulo 3 (Z3), permutations of three things (S3) and of four (S4). It is trained with Adam on words of 24
letters, three seeds at once, for each number of factors and each range of beta, and tested on words of 96 letters, at
the letters beyond the 24th.

Beside the accuracy stand the exponents of the trained memory on a long random word and, for each letter, the lasting
part of its transition: the eigenvalues of modulus above 1/2, with the sign of their product and the largest of their
phases. With these signs, and with those of full determinants, the last numbers are the share of letters of a long word
at which the product of all signs so far is the sign of the permutation (1/2 is chance; modulo 3 all are even).
"""

import itertools

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import lejax
from lejax.cells import DeltaProductCell


KEY_SIZE, VALUE_SIZE, TRAINED = 4, 8, 24


def permutations_of(count):
    """The table of products (G, G) and the signs (G,) of all permutations: `table[a, b]` is b after a."""
    elements = list(itertools.permutations(range(count)))
    index = {element: i for i, element in enumerate(elements)}
    table = [[index[tuple(b[i] for i in a)] for b in elements] for a in elements]
    signs = [round(np.linalg.det(np.eye(count)[list(element)])) for element in elements]
    return np.array(table), np.array(signs)


def cyclic(order):
    numbers = np.arange(order)
    signs = (-1) ** numbers if order % 2 == 0 else np.ones(order, int)
    return (numbers[:, None] + numbers) % order, signs


GROUPS = {
    "parity": cyclic(2),
    "modulo 3": cyclic(3),
    "S3": permutations_of(3),
    "S4": permutations_of(4),
}


class Tracker(eqx.Module):
    cell: DeltaProductCell
    readout: eqx.nn.MLP

    def __init__(self, order, num_factors, beta_range, key):
        key_cell, key_readout = jr.split(key)
        self.cell = DeltaProductCell(
            order, KEY_SIZE, VALUE_SIZE, num_factors, beta_range, dtype=jnp.float32, key=key_cell
        )
        self.readout = eqx.nn.MLP(VALUE_SIZE, order, 32, 1, dtype=jnp.float32, key=key_readout)

    def __call__(self, letters):
        def step(state, input):
            state = self.cell(input, state)
            return state, self.cell.output(state)

        _, outputs = jax.lax.scan(step, self.cell.initial_state(), letters)
        return jax.vmap(self.readout)(outputs)


def draw(key, table, batch, length):
    """Words of one-hot letters (batch, length, G), and the products of all letters so far (batch, length)."""
    words = jr.randint(key, (length, batch), 0, len(table))

    def multiply(product, letter):
        product = table[product, letter]
        return product, product

    _, products = jax.lax.scan(multiply, jnp.zeros(batch, int), words)
    return jax.nn.one_hot(words.T, len(table), dtype=jnp.float32), products.T


@eqx.filter_jit
def train(key, table, num_factors, beta_range, num_updates, batch):
    key_network, key_data = jr.split(key)
    network = Tracker(len(table), num_factors, beta_range, key_network)
    arrays, rest = eqx.partition(network, eqx.is_inexact_array)
    rate = optax.cosine_decay_schedule(1e-2, num_updates)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def loss(arrays, letters, products):
        logits = jax.vmap(eqx.combine(arrays, rest))(letters)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, products))

    def update(carry, key):
        arrays, optimizer_state = carry
        gradient = jax.grad(loss)(arrays, *draw(key, table, batch, TRAINED))
        steps, optimizer_state = optimizer.update(gradient, optimizer_state)
        return (optax.apply_updates(arrays, steps), optimizer_state), None

    start = arrays, optimizer.init(arrays)
    (arrays, _), _ = jax.lax.scan(update, start, jr.split(key_data, num_updates))
    return eqx.combine(arrays, rest)


@eqx.filter_jit
def test(network, table, signs, length):
    letters, products = draw(jr.key(99), table, 256, 4 * TRAINED)
    said = jnp.argmax(jax.vmap(network)(letters), axis=-1)
    accuracy = jnp.mean((said == products)[:, TRAINED:])
    word, products = (x[0] for x in draw(jr.key(98), table, 1, length))
    transitions = jax.vmap(network.cell.transition)(jnp.eye(len(table), dtype=jnp.float32))
    spectrum = lejax.lyapunov_spectrum(
        network.cell,
        network.cell.initial_state(),
        word,
        num_exponents=KEY_SIZE * VALUE_SIZE,
        transient=length // 10,
        throw=False,
    )
    return {
        "accuracy": accuracy,
        "exponents": spectrum.exponents[::VALUE_SIZE],
        "standard_error": spectrum.standard_error[::VALUE_SIZE],
        "transitions": transitions,
        "word": jnp.argmax(word, axis=1),
        "signs": signs[products],
    }


def read_letters(transitions, word, signs):
    """Eigenvalues of the transitions (G, K, K) of a network, and how far the signs of their products follow a word."""
    values = np.linalg.eigvals(np.asarray(transitions, float))
    lasts = np.abs(values) > 0.5
    agreement = {}
    for name, product in (
        ("whole", np.prod(values, axis=1).real),
        ("lasting", np.prod(np.where(lasts, values, 1), axis=1).real),
    ):
        so_far = np.cumprod(np.sign(product)[word])
        agreement[name] = float(np.mean(so_far == signs))
    return {
        "determinants": np.prod(values, axis=1).real,
        "largest_phase_in_turns": np.max(np.where(lasts, np.abs(np.angle(values)), 0), axis=1)
        / (2 * np.pi),
        "sign_agreement": agreement,
    }


def measure(name, num_factors, beta_range, toy):
    table, signs = map(jnp.asarray, GROUPS[name])
    keys = jr.split(jr.key(0), 1 if toy else 3)
    updates, batch, length = (20, 8, 200) if toy else (1500, 64, 3000)
    networks = eqx.filter_vmap(
        lambda key: train(key, table, num_factors, beta_range, updates, batch)
    )(keys)
    tested = eqx.filter_vmap(lambda network: test(network, table, signs, length))(networks)
    words = (np.asarray(tested.pop(x)) for x in ("transitions", "word", "signs"))
    tested["letters"] = [read_letters(*of_seed) for of_seed in zip(*words, strict=True)]
    row = {"task": name, "num_factors": num_factors, "beta_range": beta_range, **tested}
    row = _harness.to_json(row)
    accuracies = ", ".join(f"{x:.3f}" for x in row["accuracy"])
    print(f"done: {name}, {num_factors} factors, beta to {beta_range:g}: {accuracies}", flush=True)
    return row


def main():
    arguments = _harness.parse_arguments(__doc__)
    names = ["parity"] if arguments.toy else list(GROUPS)
    rows = [
        measure(name, num_factors, beta_range, arguments.toy)
        for name in names
        for num_factors in (1, 2)
        for beta_range in (1.0, 2.0)
    ]
    header = ["task", "factors", "beta to", "accuracy of each seed", "largest exponent"]
    header += ["smallest", "sign of all", "of what lasts", "largest phase [turns]"]
    table = [
        [
            row["task"],
            f"{row['num_factors']}",
            f"{row['beta_range']:g}",
            " ".join(f"{x:.3f}" for x in row["accuracy"]),
            " ".join(f"{x[0]:.4f}" for x in row["exponents"]),
            " ".join("-inf" if x[-1] is None else f"{x[-1]:.2f}" for x in row["exponents"]),
            " ".join(f"{x['sign_agreement']['whole']:.2f}" for x in row["letters"]),
            " ".join(f"{x['sign_agreement']['lasting']:.2f}" for x in row["letters"]),
            " ".join(f"{max(x['largest_phase_in_turns']):.2f}" for x in row["letters"]),
        ]
        for row in rows
    ]
    print(_harness.format_table(header, table))
    _harness.write_json(arguments.json, benchmark="state_tracking", toy=arguments.toy, rows=rows)


if __name__ == "__main__":
    main()
