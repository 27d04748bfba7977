"""Test whether a penalty on the exponents helps on real data: handwritten digits, row by row and pixel by pixel.

A tanh network of 32 units (weights from U(-0.4, 0.4), no bias) reads 8 x 8 digits of scikit-learn, as 8 rows or as 64
pixels, and classifies them by its last state. Training: Adam at 3e-3, gradients clipped at 5, batches of 64, 1400
digits to train on and 397 to validate. The penalty adds to the loss a weight times the flossing penalty of the 8
leading exponents along one digit of the batch. The results are accuracy, loss and leading exponents over training, for
three seeds.
"""

import time

import _harness  # first: it sets what JAX and NumPy read when they start
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import lejax


datasets = _harness.import_peer("sklearn.datasets")
SIZE, COUNT, TRAINING = 32, 8, 1400
OPTIMIZER = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(3e-3))


class Network(eqx.Module):
    cell: lejax.cells.RNNCell
    readout: eqx.nn.Linear

    def __call__(self, inputs):
        return self.readout(lejax.unroll(self.cell, self.cell.initial_state(), inputs)[-1])


def make_network(key, input_size: int) -> Network:
    _, key_hh, key_ih, key_readout = jr.split(key, 4)
    cell = lejax.cells.RNNCell.from_weights(
        weight_hh=jr.uniform(key_hh, (SIZE, SIZE), minval=-0.4, maxval=0.4),
        weight_ih=jr.uniform(key_ih, (SIZE, input_size), minval=-0.4, maxval=0.4),
    )
    return Network(cell, eqx.nn.Linear(SIZE, 10, key=key_readout))


@eqx.filter_jit
def train_epoch(networks, optimizer_states, keys, images, labels, weight):
    """Train every network for one epoch, each in a different order."""

    def one(network, optimizer_state, key):
        trained, rest = eqx.partition(network, eqx.is_inexact_array)

        def loss(trained, batch):
            network = eqx.combine(trained, rest)
            out = jax.vmap(network)(images[batch])
            task = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(out, labels[batch]))
            penalty = lejax.training.flossing_penalty(
                network.cell, network.cell.initial_state(), images[batch[0]], num_exponents=COUNT
            )
            return task + weight * jnp.where(weight > 0, penalty, 0)

        def update(carry, batch):
            trained, optimizer_state = carry
            gradient = jax.grad(loss)(trained, batch)
            change, optimizer_state = OPTIMIZER.update(gradient, optimizer_state, trained)
            return (optax.apply_updates(trained, change), optimizer_state), None

        count = len(images) // 64
        batches = jr.permutation(key, len(images))[: 64 * count].reshape(count, 64)
        (trained, optimizer_state), _ = jax.lax.scan(update, (trained, optimizer_state), batches)
        return eqx.combine(trained, rest), optimizer_state

    return eqx.filter_vmap(one)(networks, optimizer_states, keys)


@eqx.filter_jit
def validate(networks, images, labels):
    """Accuracy, loss, and spectrum along 20 consecutive digits, of every network."""

    def one(network):
        out = jax.vmap(network)(images)
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(out, labels))
        inputs = images[:20].reshape(-1, images.shape[-1])
        spectrum = lejax.lyapunov_spectrum(
            network.cell, network.cell.initial_state(), inputs, num_exponents=COUNT, throw=False
        )
        return jnp.mean(jnp.argmax(out, 1) == labels), loss, spectrum.exponents

    return eqx.filter_vmap(one)(networks)


def run(rows: int, weight: float, seeds: int, epochs: int, data) -> dict:
    images, labels = data
    images = jnp.asarray(images / 16).reshape(len(images), rows, 64 // rows)
    labels = jnp.asarray(labels)
    start = time.perf_counter()
    keys = jr.split(jr.key(0), seeds)
    networks = eqx.filter_vmap(lambda key: make_network(key, 64 // rows))(keys)
    optimizer_states = eqx.filter_vmap(
        lambda network: OPTIMIZER.init(eqx.filter(network, eqx.is_array))
    )(networks)
    held_out = images[TRAINING:], labels[TRAINING:]
    curve = [validate(networks, *held_out)]
    for epoch in range(epochs):
        keys = jr.split(jr.fold_in(jr.key(1), epoch), seeds)
        networks, optimizer_states = train_epoch(
            networks,
            optimizer_states,
            keys,
            images[:TRAINING],
            labels[:TRAINING],
            jnp.asarray(weight),
        )
        curve.append(validate(networks, *held_out))
    accuracy, loss, exponents = (np.stack(x) for x in zip(*curve, strict=True))
    return {
        "steps": rows,
        "weight": weight,
        "accuracy": accuracy,
        "loss": loss,
        "exponents": exponents,
        "seconds": time.perf_counter() - start,
    }


def main():
    arguments = _harness.parse_arguments(__doc__)
    if datasets is None:
        raise SystemExit(1)
    data = datasets.load_digits(return_X_y=True)
    plans = [(8, 0.0), (8, 0.1), (8, 1.0), (64, 0.0), (64, 0.1), (64, 1.0)]
    seeds, epochs = (1, 1) if arguments.toy else (3, 20)
    rows = []
    for steps, weight in plans[:2] if arguments.toy else plans:
        rows.append(run(steps, weight, seeds, epochs, data))
        print(f"done: {steps} steps, weight {weight}", flush=True)
    table = []
    for row in rows:
        cells = [f"{row['steps']}", f"{row['weight']}"]
        for name in ("accuracy", "loss"):
            final = row[name][-1]
            cells += [f"{final.mean():.3f}", f"[{final.min():.3f}, {final.max():.3f}]"]
        first, last = (row["exponents"][i, :, 0].mean() for i in (0, -1))
        table.append(cells + [f"{first:+.3f} -> {last:+.3f}", f"{row['seconds']:.0f}"])
    header = ["steps", "weight", "accuracy", "of seeds", "loss", "of seeds", "lambda_1", "seconds"]
    print(_harness.format_table(header, table))
    _harness.write_json(
        arguments.json, benchmark="regularized_digits", toy=arguments.toy, rows=rows
    )


if __name__ == "__main__":
    main()
