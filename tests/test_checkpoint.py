"""A run that is killed and called again is the run that was not."""

import json
import os
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax.run import _checkpoint, long_run


CELL = lejax.cells.RNNCell(2, 3, key=jr.key(0))
INPUTS = np.asarray(jr.normal(jr.key(1), (700, 2)))
RUN = {"transient": 60, "num_blocks": 4, "chunk_steps": 160, "key": jr.key(2)}


def assert_equal(a, b):
    """Bit for bit, NaN included."""
    one, other = jax.tree.flatten(a), jax.tree.flatten(b)
    assert one[1] == other[1]
    for x, y in zip(one[0], other[0], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def run_and_stop(saves, *args, **kwargs):
    """A long run that dies, as far as Python can see, right after so many checkpoints."""
    save, count = _checkpoint.save, []

    def dying(*args):
        save(*args)
        count.append(None)
        if len(count) == saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_checkpoint, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            long_run(*args, **kwargs)


@pytest.mark.parametrize("tolerance", [None, 1e-9])
@pytest.mark.parametrize("saves", [1, 3])  # in the transient, and later
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, saves, tolerance):
    run = RUN | {"tolerance": tolerance}
    whole = long_run(CELL, jnp.zeros(3), INPUTS, **run)
    path = tmp_path / "run.npz"
    run_and_stop(saves, CELL, jnp.zeros(3), INPUTS, checkpoint=path, **run)
    resumed = long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **run)
    assert_equal(resumed, whole)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


SCRIPT = """
import sys, time
import jax
import jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import lejax
from lejax.run import _checkpoint

save = _checkpoint.save
def slowly(*args):  # so that there is time to kill this process before it is done
    save(*args)
    time.sleep(0.05)

_checkpoint.save = slowly
lejax.run.long_run(
    lejax.systems.Henon(), jnp.zeros(2), num_steps=6_000, chunk_steps=150, checkpoint=sys.argv[1]
)
"""


def test_kill_9_loses_at_most_one_chunk(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)])
    while not path.exists() or int(_checkpoint.read(path).arrays["step"]) < 600:
        assert child.poll() is None
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    # What it wrote is whole, wherever it was hit.
    step = int(_checkpoint.read(path).arrays["step"])
    assert 600 <= step < 6_000

    henon, run = lejax.systems.Henon(), {"num_steps": 6_000, "chunk_steps": 150}
    whole = long_run(henon, jnp.zeros(2), **run)
    verb, steps = lejax.lyapunov_spectrum, []

    def spy(*args, **kwargs):
        steps.append(kwargs["num_steps"])
        return verb(*args, **kwargs)

    monkeypatch.setattr(lejax.run._long_run, "lyapunov_spectrum", spy)
    assert_equal(long_run(henon, jnp.zeros(2), checkpoint=path, **run), whole)
    assert sum(steps) == 6_000 - step


def test_a_complete_checkpoint_is_returned_at_once(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    first = long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)

    def refuse(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(lejax.run._long_run, "lyapunov_spectrum", refuse)
    monkeypatch.setattr(_checkpoint, "save", refuse)
    assert_equal(long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN), first)


def test_a_failed_run_stays_failed(tmp_path):
    path, inputs = tmp_path / "run.npz", INPUTS.copy()
    inputs[300] = np.nan
    for _ in range(2):
        with pytest.raises(RuntimeError, match="step 301"):
            long_run(CELL, jnp.zeros(3), inputs, checkpoint=path, **RUN)
    run = long_run(CELL, jnp.zeros(3), inputs, checkpoint=path, throw=False, **RUN)
    assert run.result == lejax.RESULTS.nonfinite
    assert int(run.first_bad_step) == 301


def test_a_run_with_a_smaller_tolerance_goes_on(tmp_path):
    path, henon = tmp_path / "run.npz", lejax.systems.Henon()
    run = {"chunk_steps": 400, "num_blocks": 5}
    rough = long_run(henon, jnp.zeros(2), tolerance=0.02, checkpoint=path, **run)
    fine = long_run(henon, jnp.zeros(2), tolerance=0.005, checkpoint=path, **run)
    assert int(fine.num_steps) > int(rough.num_steps)
    assert_equal(fine, long_run(henon, jnp.zeros(2), tolerance=0.005, **run))


def test_seconds_between_writes(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(_checkpoint, "save", lambda *args: saved.append(int(args[2]["step"])))
    path = tmp_path / "run.npz"
    long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, checkpoint_seconds=1e3, **RUN)
    assert saved == [60, 700]  # the first and the last


OTHERS = {
    "num_steps": ({"num_steps": 320}, "its num_steps is 640, but here it is 320"),
    "transient": ({"transient": 50, "num_steps": 640}, "its transient is 60, but here it is 50"),
    "blocks": ({"num_blocks": 8}, "its num_blocks is 4, but here it is 8"),
    "chunks": ({"chunk_steps": 80}, "its chunk_steps is 160, but here it is 80"),
    "k": ({"num_exponents": np.int64(2)}, "its num_exponents is None, but here it is 2"),
    "dt": ({"dt": 0.5}, r"its dt is float64\[\] 1.0, but here it is float64\[\] 0.5"),
    "method": (
        {"method": lejax.SequentialQR(every=2)},
        r"its method is SequentialQR\(\), but here it is SequentialQR\(every=array\(2, dtype=int32\)\)",
    ),
    "key": ({"key": jr.key(3)}, r"its key is a key uint32\[2\] \[0, 2\], but here it is .*\[0, 3\]"),
    "frame": ({"frame": jnp.eye(3)}, "its frame is absent, but here it is float64"),
    "tolerance": ({"tolerance": 1.0}, "its kind is a long run, but here .* with a tolerance"),
    "state": ({"state": jnp.ones(3)}, r"its state is .*0.0\], but here it is .*1.0\]"),
    "shape": (
        {"cell": lejax.cells.RNNCell(2, 4, key=jr.key(0)), "state": jnp.zeros(4)},
        r"its state is float64\[3\].* but here it is float64\[4\]",
    ),
    "inputs": ({"inputs": 2 * INPUTS}, r"its inputs is float64\[700, 2\] with fingerprint \w+, but"),
    "weights": (
        {"cell": lejax.cells.RNNCell(2, 3, key=jr.key(1))},
        r"its cell.weight_ih is float64\[3, 2\] with fingerprint \w+, but here it is float64",
    ),
    "structure": (
        {"cell": lejax.cells.RNNCell(2, 3, activation=jnp.sin, key=jr.key(0))},
        r"its cell is RNNCell with fingerprint \w+, but here it is RNNCell with fingerprint \w+\.$",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run.npz"
    long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(finished, name):
    changes, message = OTHERS[name]
    before = finished.read_bytes()
    arguments = {"cell": CELL, "state": jnp.zeros(3), "inputs": INPUTS} | RUN | changes
    with pytest.raises(ValueError, match=message):
        long_run(**arguments, checkpoint=finished)
    assert finished.read_bytes() == before


def test_counts_may_be_those_of_numpy(finished):
    run = RUN | {"transient": np.int64(60), "num_blocks": np.int64(4), "num_steps": np.int32(640)}
    assert int(long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=finished, **run).num_steps) == 640


def test_the_fingerprint_of_a_function_is_that_of_its_program_and_arrays(tmp_path):
    path = tmp_path / "run.npz"

    def run(scale, power):
        return long_run(
            lambda u, x: scale * x**power, jnp.array(0.3), num_steps=20, checkpoint=path
        )

    first = run(jnp.asarray(0.9), 1)
    assert_equal(run(jnp.asarray(0.9), 1), first)
    with pytest.raises(ValueError, match=r"its cell.* 0.9, but here it is .* 0.8"):
        run(jnp.asarray(0.8), 1)
    with pytest.raises(ValueError, match=r"its cell is .*fingerprint"):
        run(jnp.asarray(0.9), 2)


def test_damaged_and_foreign_files_are_refused(finished, tmp_path):
    content = finished.read_bytes()
    files = {
        "damaged or truncated": content[: len(content) // 2],
        "is empty": b"",
        "header that cannot|damaged|is not a": content[:100] + b"\xff" * 50 + content[150:],
    }
    path = tmp_path / "run.npz"
    for message, data in files.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)
        assert path.read_bytes() == data
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match="is not a lejax checkpoint 1"):
        long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)
    with pytest.raises(ValueError, match=r"must be a path that ends in \.npz"):
        long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=tmp_path / "run.pkl", **RUN)
    with pytest.raises(FileNotFoundError, match=r"folder of checkpoint .* does not exist"):
        long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=tmp_path / "no" / "run.npz", **RUN)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    _checkpoint.save(path, {"a": 1}, {"x": np.arange(3)})

    def fail(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        _checkpoint.save(path, {"a": 1}, {"x": np.arange(4)})
    np.testing.assert_array_equal(_checkpoint.load(path, {"a": 1})["x"], np.arange(3))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, bool, np.int64])
def test_every_dtype_survives(tmp_path, dtype):
    path = tmp_path / "a.npz"
    arrays = {"x": np.asarray(jnp.arange(4).astype(dtype)), "y": np.asarray(jnp.ones((), dtype))}
    _checkpoint.save(path, {}, arrays)
    loaded = _checkpoint.load(path, {})
    assert_equal(loaded, arrays)


def test_no_pickle_and_a_readable_header(finished):
    with np.load(finished, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    assert header["identity"]["num_steps"] == 640
    assert header["identity"]["kind"] == "a long run"


def test_a_large_array_has_one_fingerprint_however_it_is_stored():
    rows = np.arange(3_000_000.0).reshape(-1, 3)
    assert _checkpoint.identify("x", rows) == _checkpoint.identify("x", jnp.asarray(rows))
    fortran = np.asfortranarray(rows)
    assert _checkpoint.identify("x", rows) == _checkpoint.identify("x", fortran)
    changed = rows.copy()
    changed[-1, -1] += 1e-9
    assert _checkpoint.identify("x", rows) != _checkpoint.identify("x", changed)


def test_low_precision_states_resume(tmp_path):
    path = tmp_path / "run.npz"
    cell = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_array(x) else x, CELL)
    inputs = INPUTS.astype(jnp.bfloat16)
    run = RUN | {"num_steps": 320}
    whole = long_run(cell, jnp.zeros(3, jnp.bfloat16), inputs, **run)
    run_and_stop(2, cell, jnp.zeros(3, jnp.bfloat16), inputs, checkpoint=path, **run)
    resumed = long_run(cell, jnp.zeros(3, jnp.bfloat16), inputs, checkpoint=path, **run)
    assert resumed.state.dtype == jnp.bfloat16
    assert_equal(resumed, whole)
