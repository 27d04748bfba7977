"""Train the network that ships in `lejax.data`: a GRU that reads handwritten digits row by row.

    python benchmarks/train_digits.py --out lejax/data     # about 20 s on 2 cores
    python benchmarks/train_digits.py --check              # retrain, compare with the committed files

A GRU of 32 units reads the 8 rows of an 8 x 8 digit as 8 inputs of size 8 and classifies the digit after
the last row. Digits follow each other without a reset of the state, in training (streams of 8) as in
the test (one stream of all 397 test digits), so that a run over such a stream is in the regime the
network was trained for.

Training is in float64 and the weights are stored in float32, so that the cast removes the rounding in which
machines differ. The same machine and versions give the same file byte for byte.
"""

import argparse
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

import lejax


NUM_TRAIN = 1400
HIDDEN_SIZE = 32
STREAM = 8  # digits that follow each other in training
BATCH = 32  # streams in one update
UPDATES = 1500
NOISE = 0.1  # standard deviation of the noise on pixels in training
CREDIT = (
    "GRU trained on scikit-learn's load_digits by benchmarks/train_digits.py of lejax. Data: E. Alpaydin and "
    "C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
    "doi:10.24432/C50P49, CC BY 4.0."
)


def split_digits():
    """Images 0..16 (uint8) and labels, in a fixed random order: 1400 to train on, 397 to test."""
    digits = load_digits()
    order = np.asarray(jr.permutation(jr.key(1797), len(digits.target)))
    images, labels = digits.images[order].astype(np.uint8), digits.target[order].astype(np.uint8)
    return (images[:NUM_TRAIN], labels[:NUM_TRAIN]), (images[NUM_TRAIN:], labels[NUM_TRAIN:])


def logits(model, images):
    """Logits (n, 10) after the last row of each of n digits (n, 8, 8), read as one stream."""
    cell, readout = model
    states = lejax.unroll(cell, cell.initial_state(), images.reshape(-1, 8))
    return jax.vmap(readout)(states[7::8])


@eqx.filter_jit
def train(images, labels, num_updates, key):
    """The trained (cell, readout) and the loss at every update."""
    images, labels = jnp.asarray(images) / 16.0, jnp.asarray(labels)
    key_cell, key_readout, key_updates = jr.split(key, 3)
    model = (
        lejax.cells.GRUCell(8, HIDDEN_SIZE, key=key_cell),
        eqx.nn.Linear(HIDDEN_SIZE, 10, key=key_readout),
    )
    schedule = optax.cosine_onecycle_schedule(num_updates, 1e-2)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-3)
    )
    weights, static = eqx.partition(model, eqx.is_array)

    def loss(weights, images, labels):
        out = jax.vmap(lambda stream: logits(eqx.combine(weights, static), stream))(images)
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()

    def update(carry, key):
        weights, memory = carry
        key_draw, key_noise = jr.split(key)
        drawn = jr.randint(key_draw, (BATCH, STREAM), 0, len(images))
        noisy = images[drawn] + NOISE * jr.normal(key_noise, (BATCH, STREAM, 8, 8))
        value, gradient = jax.value_and_grad(loss)(weights, noisy, labels[drawn])
        step, memory = optimizer.update(gradient, memory, weights)
        return (optax.apply_updates(weights, step), memory), value

    carry = weights, optimizer.init(weights)
    (weights, _), losses = jax.lax.scan(update, carry, jr.split(key_updates, num_updates))
    return eqx.combine(weights, static), losses


def accuracy(model, images, labels):
    """The share of digits that are classified correctly in one stream of all of them."""
    guesses = jnp.argmax(logits(model, jnp.asarray(images) / 16.0), axis=-1)
    return float(jnp.mean(guesses == labels))


def to_torch(model):
    """The state dict of a PyTorch module with `rnn = GRU(8, 32)` and `readout = Linear(32, 10)`."""
    cell, readout = model
    arrays = {
        "rnn.weight_ih_l0": cell.weight_ih,
        "rnn.weight_hh_l0": cell.weight_hh,
        "rnn.bias_ih_l0": cell.bias,
        # PyTorch has two biases for each gate. They add up except in the n gate.
        "rnn.bias_hh_l0": jnp.concatenate([jnp.zeros(2 * HIDDEN_SIZE), cell.bias_n]),
        "readout.weight": readout.weight,
        "readout.bias": readout.bias,
    }
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def leading_exponents(cell, images):
    """The spectrum of a cell along the stream, past the first ten digits."""
    rows = jnp.asarray(images).reshape(-1, 8) / 16.0
    cell = jax.tree.map(lambda x: x.astype(rows.dtype), cell)
    return lejax.lyapunov_spectrum(cell, cell.initial_state(), rows, transient=80).exponents


def check(arrays, images, labels):
    """Largest differences of weights and exponents from the committed files, and of the test digits."""
    folder = Path(lejax.data.__file__).parent
    committed = load_file(folder / "digits_gru.safetensors")
    weights = max(float(np.max(np.abs(arrays[name] - committed[name]))) for name in arrays)
    with np.load(folder / "digits_test.npz") as digits:
        same = np.array_equal(digits["images"], images) and np.array_equal(digits["labels"], labels)
    mine = lejax.interop.from_torch(arrays, prefix="rnn.")
    exponents = leading_exponents(mine, images) - leading_exponents(lejax.data.digits_gru(), images)
    return {
        "weights": weights,
        "exponents": float(jnp.max(jnp.abs(exponents))),
        "same_digits": bool(same),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="30 updates instead of 1500")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write network and digits to DIR")
    parser.add_argument("--check", action="store_true", help="compare with the committed network")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    (images, labels), (test_images, test_labels) = split_digits()
    start = time.perf_counter()
    model, losses = train(images, labels, 30 if args.toy else UPDATES, jr.key(0))
    losses = np.asarray(losses)
    report = {
        "seconds": round(time.perf_counter() - start, 1),
        "updates": len(losses),
        "final_loss": float(losses[-1]),
        "train_accuracy": accuracy(model, images, labels),
        "test_accuracy": accuracy(model, test_images, test_labels),
    }
    arrays = to_torch(model)
    if args.check:
        report["difference"] = check(arrays, test_images, test_labels)
    for name, value in report.items():
        print(f"{name}: {value}")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        # One entry only, since safetensors writes several in an order that differs from run to run.
        save_file(arrays, args.out / "digits_gru.safetensors", metadata={"source": CREDIT})
        np.savez_compressed(args.out / "digits_test.npz", images=test_images, labels=test_labels)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")
    if args.check and not args.toy:
        difference = report["difference"]
        if (
            max(difference["weights"], difference["exponents"]) > 1e-6
            or not difference["same_digits"]
        ):
            raise SystemExit("The retrained network differs from the committed one.")


if __name__ == "__main__":
    main()
