"""The monitor of a training: values against plain formulas, transformations, JSON lines, TensorBoard, the picture."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from matplotlib.figure import Figure
from networks import Linear, driven_gru, random_tanh

import lejax
from lejax.plot import plot_records
from lejax.training import append_record, log_record, monitor, read_records


GRU, REST, INPUTS = driven_gru(size=12, num_steps=150)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_numbers_are_those_of_the_spectrum(dtype):
    cell, state, inputs = jax.tree.map(lambda x: x.astype(dtype), (GRU, REST, INPUTS))
    snapshot = monitor(cell, state, inputs, transient=20, band=0.45)
    spectrum = lejax.lyapunov_spectrum(cell, state, inputs, transient=20, num_exponents=8)
    values = np.asarray(spectrum.exponents)
    np.testing.assert_array_equal(snapshot.exponents, values)
    np.testing.assert_array_equal(snapshot.standard_error, spectrum.standard_error)
    assert snapshot.num_near_zero == np.sum(np.abs(values) <= 0.45) > 0
    np.testing.assert_allclose(snapshot.gradient_horizon, np.log(10) / abs(values[0]), rtol=1e-6)
    np.testing.assert_allclose(snapshot.log_condition, 130 * (values[0] - values[7]), rtol=1e-5)
    assert snapshot.num_dead == 0
    assert snapshot.exponents.dtype == snapshot.gradient_horizon.dtype == dtype


def test_the_condition_is_that_of_the_product_of_jacobians():
    cell, state = random_tanh(jr.key(0), 6, 1.2), jr.normal(jr.key(1), (6,))
    steps = 12
    snapshot = monitor(cell, state, num_steps=steps)
    product = np.eye(6)
    for _ in range(steps):
        product = np.asarray(lejax.jacobian(cell, state)) @ product
        state = cell(None, state)
    values = np.linalg.svd(product, compute_uv=False)
    expected = np.log(values[0] / values[-1])
    assert abs(snapshot.log_condition - expected) < 0.2 * expected
    rotation = Linear(jnp.linalg.qr(jr.normal(jr.key(3), (4, 4)))[0])
    np.testing.assert_allclose(
        monitor(rotation, jnp.zeros(4), num_steps=50).log_condition, 0, atol=1e-10
    )


def test_the_horizon_counts_steps_to_a_tenth():
    for rate in (0.8, 1.25):
        snapshot = monitor(Linear(rate * jnp.eye(1)), jnp.zeros(1), num_steps=20)
        np.testing.assert_allclose(
            rate**snapshot.gradient_horizon, 10 ** np.sign(rate - 1), rtol=1e-9
        )
    assert monitor(Linear(jnp.eye(1)), jnp.zeros(1), num_steps=20).gradient_horizon == jnp.inf
    slow = lejax.cells.LeakyRNNCell(0, 3, dt=0.1, gain=0.0, key=jr.key(0))  # 0.9 in each step
    snapshot = monitor(slow, jnp.ones(3), num_steps=20)
    np.testing.assert_allclose(snapshot.exponents, np.log(0.9) / 0.1, rtol=1e-9)
    np.testing.assert_allclose(snapshot.gradient_horizon, np.log(0.1) / np.log(0.9), rtol=1e-9)


def test_the_report_has_the_same_horizon():
    report = lejax.report(lejax.systems.Henon(), jnp.zeros(2), num_steps=300, progress=False)
    snapshot = monitor(lejax.systems.Henon(), jnp.zeros(2), num_steps=300)
    np.testing.assert_allclose(report.gradient_horizon, snapshot.gradient_horizon, rtol=1e-9)


def test_dead_directions_are_counted():
    cell = Linear(jnp.diag(jnp.array([0.9, 0.8, 0.0, 0.0])))
    snapshot = monitor(cell, jnp.zeros(4), num_steps=40, transient=40)
    assert snapshot.num_dead == 2
    assert snapshot.log_condition == jnp.inf
    assert monitor(cell, jnp.zeros(4), num_steps=40, transient=40, num_exponents=2).num_dead == 0


def test_a_diverged_run_has_its_status():
    snapshot = monitor(Linear(1e200 * jnp.eye(2)), jnp.ones(2), num_steps=5)
    assert bool(snapshot.result == lejax.RESULTS.nonfinite)
    record = snapshot.to_record(3, loss=math.nan)
    assert math.isnan(record["loss"])


def test_jit_vmap_and_grad():
    sequences = jnp.stack([INPUTS, -INPUTS])

    @eqx.filter_jit
    def both(cell):
        return jax.vmap(lambda inputs: monitor(cell, REST, inputs, num_exponents=3))(sequences)

    snapshots = both(GRU)
    alone = monitor(GRU, REST, sequences[1], num_exponents=3)
    for many, one in zip(jax.tree.leaves(snapshots), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(many[1], one, rtol=1e-9)
    slope = jax.grad(
        lambda s: monitor(Linear(s * jnp.eye(2)), jnp.zeros(2), num_steps=9).exponents[0]
    )
    np.testing.assert_allclose(slope(0.5), 2.0, rtol=1e-9)
    with pytest.raises(ValueError, match="snapshot is a batch"):
        snapshots.to_record(0)
    with pytest.raises(TypeError, match="to_record runs on the host"):
        jax.jit(lambda x: monitor(GRU, x, INPUTS).to_record(0)["update"])(REST)


RECORD = {
    "update": 100,
    "loss": 0.25,
    "exponents": [-0.5, -math.inf],
    "standard_error": [0.1, math.nan],
}


def test_records_come_back_from_json_lines(tmp_path):
    path = tmp_path / "training.jsonl"
    snapshot = monitor(GRU, REST, INPUTS)
    record = snapshot.to_record(np.int64(7), loss=jnp.array(0.5))
    assert (record["update"], record["loss"]) == (7, 0.5)
    append_record(path, record)
    append_record(path, RECORD)
    first, second = read_records(path)
    assert first == record
    assert second["exponents"] == RECORD["exponents"]
    assert math.isnan(second["standard_error"][1])

    def refuse(name):
        raise AssertionError(name)

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_lines_of_several_writers_do_not_mix(tmp_path):
    path = tmp_path / "training.jsonl"

    def append_many(writer):
        for i in range(200):
            append_record(path, {"update": i, "writer": writer, "exponents": [writer] * 3000})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append_many, range(4)))
    records = read_records(path)
    assert len(records) == 800
    for record in records:
        assert record["exponents"] == [record["writer"]] * 3000


def test_bad_records_are_one_sentence(tmp_path):
    path = tmp_path / "training.jsonl"
    with pytest.raises(TypeError, match=r"record\['state'\] must be a number or a list of them"):
        append_record(path, {"state": np.zeros(2)})
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match=r"training.jsonl' cannot be written: No such file"):
        append_record(tmp_path / "no" / "training.jsonl", RECORD)
    with pytest.raises(FileNotFoundError, match=r"training.jsonl' cannot be read: No such file"):
        read_records(tmp_path / "training.jsonl")
    with pytest.raises(ValueError, match="cannot be written: Is a directory"):
        append_record(tmp_path, RECORD)
    path.write_text('{"update": 1}\n{"upd')
    with pytest.raises(ValueError, match=r"line 2 of .* is no JSON object"):
        read_records(path)
    with pytest.raises(TypeError, match=r"add_scalar\(tag, value, step\), as tensorboardX"):
        log_record(tmp_path, RECORD)
    with pytest.raises(ValueError, match="record must have an update, got loss"):
        log_record(Scalars(), {"loss": 1.0})


class Scalars:
    def __init__(self):
        self.calls = []

    def add_scalar(self, tag, value, step):
        self.calls.append((tag, value, step))


def test_numbers_go_to_any_writer_of_scalars():
    writer = Scalars()
    log_record(writer, RECORD, prefix="held out")
    assert writer.calls == [("held out/loss", 0.25, 100)]


def test_numbers_reach_the_files_of_tensorboard(tmp_path):
    tensorboard = pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    record = monitor(GRU, REST, INPUTS).to_record(200, loss=0.25)
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        log_record(writer, record)
    (file,) = tmp_path.iterdir()
    content, events = file.read_bytes(), []
    while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    found = {v.tag: (e.step, v.simple_value) for e in events for v in e.summary.value}
    assert found["dynamics/loss"] == (200, 0.25)
    step, largest = found["dynamics/largest_exponent"]
    assert step == 200
    np.testing.assert_allclose(largest, record["largest_exponent"], rtol=1e-6)
    assert len(found) == 7


def make_record(update, exponents, **changes):
    return {
        "update": update,
        "exponents": exponents,
        "standard_error": [0.1] * len(exponents),
        "gradient_horizon": math.log(10) / abs(exponents[0]) if exponents[0] else math.inf,
        "num_near_zero": 1,
        "num_dead": int(math.isinf(exponents[-1])),
    } | changes


def test_the_picture_of_a_training():
    records = [
        make_record(0, [-0.5, -1.0]),
        make_record(100, [0.0, -math.inf]),
        make_record(200, [0.2, -0.4]),
    ]
    upper, middle, lower = plot_records(records, axes=tuple(Figure().subplots(3)))
    first = upper.lines[-1]
    np.testing.assert_allclose(first.get_xydata(), [[0, -0.5], [100, 0], [200, 0.2]])
    np.testing.assert_array_equal(np.isnan(upper.lines[1].get_ydata()), [False, True, False])
    (band,) = upper.collections
    assert band.get_paths()[0].vertices[:, 1].min() == -0.7
    _, vanish, explode = middle.lines
    np.testing.assert_allclose(vanish.get_xydata(), [[0, math.log(10) / 0.5]])
    np.testing.assert_allclose(explode.get_xydata(), [[200, math.log(10) / 0.2]])
    assert middle.get_yscale() == "log"
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), 1)
    np.testing.assert_array_equal(lower.lines[1].get_ydata(), [0, 1, 0])
    with pytest.raises(ValueError, match="at least one record"):
        plot_records([])
    with pytest.raises(ValueError, match=r"records\[1\] has 1 exponents, records\[0\] has 2"):
        plot_records([records[0], make_record(100, [0.1])])
    with pytest.raises(ValueError, match=r"records\[0\] lacks exponents, "):
        plot_records([{"update": 0}])
