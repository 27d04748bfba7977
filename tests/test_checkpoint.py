"""Checkpoints: a run that is killed and called again equals an uninterrupted one."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax._core import checkpoint
from lejax.run import Checkpoint, long_run


CELL = lejax.cells.RNNCell(2, 3, key=jr.key(0))
INPUTS = np.asarray(jr.normal(jr.key(1), (700, 2)))
RUN = {"transient": 60, "num_blocks": 4, "chunk_steps": 160, "key": jr.key(2)}


def assert_equal(a, b):
    """Assert equal bits, including NaN."""
    one, other = jax.tree.flatten(a), jax.tree.flatten(b)
    assert one[1] == other[1]
    for x, y in zip(one[0], other[0], strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def run_and_stop(saves, *args, **kwargs):
    """A long run that is interrupted right after this number of checkpoints."""
    save, count = checkpoint.save, []

    def dying(*args):
        save(*args)
        count.append(None)
        if len(count) == saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            long_run(*args, **kwargs)


@pytest.mark.parametrize("tolerance", [None, 1e-9])
@pytest.mark.parametrize("saves", [1, 3])  # in the transient and after it
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, saves, tolerance):
    run = RUN | {"tolerance": tolerance}
    uninterrupted = long_run(CELL, jnp.zeros(3), INPUTS, **run)
    path = tmp_path / "run.npz"
    run_and_stop(saves, CELL, jnp.zeros(3), INPUTS, checkpoint=path, **run)
    resumed = long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **run)
    assert_equal(resumed, uninterrupted)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


SCRIPT = """
import sys, time
import jax
import jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import lejax
from lejax._core import checkpoint

save = checkpoint.save
def slowly(*args):  # leaves time to kill this process before it ends
    save(*args)
    time.sleep(0.05)

checkpoint.save = slowly
lejax.run.long_run(
    lejax.systems.Henon(), jnp.zeros(2), num_steps=6_000, chunk_steps=150, checkpoint=sys.argv[1]
)
"""


def test_kill_9_loses_at_most_one_chunk(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)])
    while not path.exists() or int(checkpoint.read(path).arrays["step"]) < 600:
        assert child.poll() is None
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    # The file is complete, wherever the process was killed.
    step = int(checkpoint.read(path).arrays["step"])
    assert 600 <= step < 6_000

    henon, run = lejax.systems.Henon(), {"num_steps": 6_000, "chunk_steps": 150}
    uninterrupted = long_run(henon, jnp.zeros(2), **run)
    verb, steps = lejax.lyapunov_spectrum, []

    def spy(*args, **kwargs):
        steps.append(kwargs["num_steps"])
        return verb(*args, **kwargs)

    monkeypatch.setattr(lejax.run._chunked_run, "lyapunov_spectrum", spy)
    assert_equal(long_run(henon, jnp.zeros(2), checkpoint=path, **run), uninterrupted)
    assert sum(steps) == 6_000 - step


def test_a_complete_checkpoint_is_returned_at_once(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    first = long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)

    def refuse(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(lejax.run._chunked_run, "lyapunov_spectrum", refuse)
    monkeypatch.setattr(checkpoint, "save", refuse)
    assert_equal(long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN), first)


def test_a_failed_run_stays_failed(tmp_path):
    path, inputs = tmp_path / "run.npz", INPUTS.copy()
    inputs[300] = np.nan
    for _ in range(2):
        with pytest.raises(RuntimeError, match="step 301"):
            long_run(CELL, jnp.zeros(3), inputs, checkpoint=path, **RUN)
    run = long_run(CELL, jnp.zeros(3), inputs, checkpoint=path, throw=False, **RUN)
    assert run.result == lejax.RESULTS.nonfinite
    assert int(run.diagnostics.first_bad_step) == 301


def test_a_run_with_a_smaller_tolerance_goes_on(tmp_path):
    path, henon = tmp_path / "run.npz", lejax.systems.Henon()
    run = {"chunk_steps": 400, "num_blocks": 5}
    rough = long_run(henon, jnp.zeros(2), tolerance=0.02, checkpoint=path, **run)
    fine = long_run(henon, jnp.zeros(2), tolerance=0.005, checkpoint=path, **run)
    assert int(fine.num_steps) > int(rough.num_steps)
    assert_equal(fine, long_run(henon, jnp.zeros(2), tolerance=0.005, **run))


def test_seconds_between_writes(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda *args: saved.append(int(args[2]["step"])))
    path = tmp_path / "run.npz"
    long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=Checkpoint(path, seconds=1e3), **RUN)
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
        r"its method is SequentialQR\(\), but here it is SequentialQR\(every=2\)",
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
        r"its cell is RNNCell with fingerprint \w+, but here it is RNNCell with fingerprint \w+\. "
        r"Delete it or name another\.$",
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


def test_the_fingerprint_of_a_function_covers_its_program_and_arrays(tmp_path):
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
    checkpoint.save(path, {"a": 1}, {"x": np.arange(3)})

    def fail(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"a": 1}, {"x": np.arange(4)})
    np.testing.assert_array_equal(checkpoint.load(path, {"a": 1})["x"], np.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be opened")
def test_content_and_name_reach_the_disk_in_this_order(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, os.replace

    def spy(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(os, "replace", lambda *args: (done.append("name"), replace(*args)))
    checkpoint.save(tmp_path / "a.npz", {}, {"x": np.arange(3)})
    assert done == ["content", "name", "folder"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, bool, np.int64])
def test_every_dtype_survives(tmp_path, dtype):
    path = tmp_path / "a.npz"
    arrays = {"x": np.asarray(jnp.arange(4).astype(dtype)), "y": np.asarray(jnp.ones((), dtype))}
    checkpoint.save(path, {}, arrays)
    loaded = checkpoint.load(path, {})
    assert_equal(loaded, arrays)


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """The checkpoint of a run that was stopped after a transient of 60 steps and 320 counted steps."""
    path = tmp_path_factory.mktemp("halfway") / "run.npz"
    run_and_stop(3, CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)
    content = checkpoint.read(path)
    assert int(content.arrays["step"]) == 380
    return content


NONSENSE = {
    "before the start": {"step": np.asarray(-60)},
    "at the start": {"step": np.asarray(0)},
    "far away": {"step": np.asarray(10**15)},
    "inside a chunk": {"step": np.asarray(381)},
    "another chunk": {"step": np.asarray(540)},
    "half a step": {"step": np.asarray(380.0)},
    "two steps": {"step": np.asarray([380, 380])},
    "a state of another size": {"state.0": np.zeros(4)},
    "a state of integers": {"state.0": np.zeros(3, int)},
    "a state that left the numbers": {"state.0": np.array([0.0, np.nan, 0.0])},
    "no state": {"state.0": None},
    "two states": {"state.1": np.zeros(3)},
    "a narrow frame": {"frame": np.eye(3, 2)},
    "an infinite frame": {"frame": np.full((3, 3), np.inf)},
    "part of a tally": {"tally.longest_interval": None},
    "other blocks": {"tally.ends": np.array([100, 320, 480, 640])},
    "fewer blocks": {"tally.lengths": np.array([160, 160])},
    "negative lengths": {"tally.lengths": np.array([480, -160, 0, 0])},
    "steps that were not counted": {"tally.lengths": np.array([160, 0, 0, 0])},
    "growth without a value": {"tally.growth": np.full((4, 3), np.nan)},
    "too many lost": {"tally.unresolved": np.array([0, 0, 321])},
    "an interval of nothing": {"tally.longest_interval": np.asarray(0)},
    "no orthonormalization": {"tally.num_orthonormalizations": np.asarray(0)},
    "a failure to come": {"tally.first_bad_step": np.asarray(381)},
    "no time": {"tally.dt": np.asarray(0.0)},
    "no number of time": {"tally.dt": np.asarray(np.nan)},
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_impossible_contents_are_refused(halfway, tmp_path, name):
    path = tmp_path / "run.npz"
    arrays = halfway.arrays | NONSENSE[name]
    arrays = {name: array for name, array in arrays.items() if array is not None}
    checkpoint.save(path, halfway.identity, arrays)
    before = path.read_bytes()
    (key,) = NONSENSE[name]
    # If lengths do not add up to the step, the error may name the step.
    named = key if name != "another chunk" else r"tally\.lengths"
    with pytest.raises(ValueError, match=rf"run\.npz' is damaged: i.*{named}.*\.$") as caught:
        long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_unchanged_contents_resume(halfway, tmp_path):
    path = tmp_path / "run.npz"
    checkpoint.save(path, halfway.identity, halfway.arrays)
    resumed = long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)
    assert_equal(resumed, long_run(CELL, jnp.zeros(3), INPUTS, **RUN))


@pytest.mark.parametrize("ends", [[500, 1000, 1500, 2000], [1200, 2400, 3600, 4800]])
def test_joined_blocks_are_powers_of_two_of_the_first(tmp_path, ends):
    henon = lejax.systems.Henon()
    run = {"tolerance": 1e-9, "num_blocks": 2, "chunk_steps": 200}
    path = tmp_path / "run.npz"
    run_and_stop(12, henon, jnp.zeros(2), checkpoint=path, **run)
    content = checkpoint.read(path)
    assert content.arrays["tally.ends"].tolist() == [800, 1600, 2400, 3200]
    arrays = content.arrays | {"tally.ends": np.array(ends)}
    checkpoint.save(path, content.identity, arrays)
    with pytest.raises(ValueError, match=r"is damaged: its tally\.(ends|lengths)"):
        long_run(henon, jnp.zeros(2), checkpoint=path, **run)


HEADERS = {
    "deep": b"[" * 100_000,
    "list": b"[]",
    "number": b"7",
    "text": b'"lejax checkpoint 1"',
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
    "no dtypes": b'{"format": "lejax checkpoint 1", "identity": {}}',
    "odd dtypes": b'{"format": "lejax checkpoint 1", "identity": {}, "dtypes": ["float64"]}',
    "unknown dtype": b'{"format": "lejax checkpoint 1", "identity": {}, "dtypes": {"x": "float7"}}',
    "odd identity": b'{"format": "lejax checkpoint 1", "identity": 3, "dtypes": {"x": "float64"}}',
    "missing": b'{"format": "lejax checkpoint 1", "identity": {}, "dtypes": {"x": "float64", "y": "bool"}}',
    "not in its header": b'{"format": "lejax checkpoint 1", "identity": {}, "dtypes": {}}',
    "another size": b'{"format": "lejax checkpoint 1", "identity": {}, "dtypes": {"x": "bfloat16"}}',
    "another kind": b'{"format": "lejax checkpoint 1", "identity": {}, "dtypes": {"x": "int64"}}',
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_another_kind_is_refused(tmp_path, name):
    path = tmp_path / "run.npz"
    np.savez(path, x=np.ones(2), header=np.frombuffer(HEADERS[name], np.uint8))
    with pytest.raises(ValueError, match=r"run\.npz' is (damaged: its [xy] |not a lejax)"):
        long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)


def test_corrupted_files_raise_no_other_error(halfway, tmp_path):
    path = tmp_path / "run.npz"
    checkpoint.save(path, halfway.identity, halfway.arrays)
    original, rng = path.read_bytes(), np.random.default_rng(0)
    sentences = []
    for _ in range(300):
        content = bytearray(original)
        for _ in range(rng.integers(1, 5)):
            content[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(content[: rng.integers(1, 2 * len(content))])
        try:
            checkpoint.read(path)
        except ValueError as error:
            sentences.append(str(error))
    assert len(sentences) > 200
    assert all("run.npz'" in sentence and "\n" not in sentence for sentence in sentences)


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "run.npz"
    for target in ("mine", "nowhere", "run.npz"):
        path.symlink_to(target)
        with pytest.raises(ValueError, match=r"run\.npz' is a symbolic link, which would be rep"):
            long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)
        with pytest.raises(ValueError, match="is a symbolic link"):
            checkpoint.save(path, {}, {})
        path.unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("x" * 252 + ".npz", ValueError, r"has 256 bytes, more than 255\."),
        ("\N{SNOWMAN}" * 84 + ".npz", ValueError, r"has 256 bytes, more than 255\."),
        ("a\0b.npz", ValueError, r"'a\\x00b\.npz' holds a NUL"),
        (b"a.npz", TypeError, r"checkpoint must be a path, got b'a\.npz'"),
        (7, TypeError, "checkpoint must be a path, got 7"),
    ],
)
def test_an_impossible_path_is_refused_before_the_run(monkeypatch, tmp_path, path, kind, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lejax.run._chunked_run, "lyapunov_spectrum", None)
    with pytest.raises(kind, match=message):
        long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=path, **RUN)


def test_the_longest_name_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".npz")
    checkpoint.save(checkpoint.prepare_path(path), {"a": 1}, {"x": np.arange(3)})
    np.testing.assert_array_equal(checkpoint.load(path, {"a": 1})["x"], np.arange(3))


def test_abandoned_files_are_removed_and_files_being_written_are_not(tmp_path):
    old, young = tmp_path / ".lejax-1.tmp", tmp_path / ".lejax-2.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    checkpoint.prepare_path(tmp_path / "run.npz")
    assert [path.name for path in tmp_path.iterdir()] == [young.name]


def test_a_checkpoint_knows_its_version(finished, monkeypatch):
    with np.load(finished) as file:
        assert json.loads(file["header"].tobytes())["lejax"] == lejax.__version__
    monkeypatch.setattr(lejax.run._identity, "__version__", "0.0.7")
    with pytest.raises(ValueError, match=r"its version of lejax is .*, but here it is 0\.0\.7"):
        long_run(CELL, jnp.zeros(3), INPUTS, checkpoint=finished, **RUN)


def test_a_custom_derivative_is_part_of_the_program(tmp_path):
    def cell(slope):
        @jax.custom_jvp
        def step(x):
            return jnp.sin(x)

        step.defjvps(lambda dx, y, x: slope * jnp.cos(x) * dx)
        return lambda input, x: step(x)

    path = tmp_path / "run.npz"
    run = {"num_steps": 20, "checkpoint": path}
    long_run(cell(1), jnp.ones(2), **run)
    long_run(cell(1), jnp.ones(2), **run)
    with pytest.raises(ValueError, match=r"its cell is .* with fingerprint"):
        long_run(cell(2), jnp.ones(2), **run)


WRITER = """
import sys
import numpy as np
from lejax._core import checkpoint
path, number = checkpoint.prepare_path(sys.argv[1]), int(sys.argv[2])
for i in range(150):
    arrays = {"x": np.full(20_000 + 500 * number, i), "step": np.asarray(i)}
    checkpoint.save(path, {"a": 1}, arrays)
"""


@pytest.mark.slow  # two processes
def test_two_writers_and_a_reader(tmp_path):
    path = tmp_path / "run.npz"
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"{number}"])
        for number in range(2)
    ]
    lengths, reads = set(), 0
    try:
        while any(child.poll() is None for child in children):
            arrays = checkpoint.load(path, {"a": 1})
            if arrays is not None:
                assert np.all(arrays["x"] == arrays["step"])
                lengths.add(len(arrays["x"]))
                reads += 1
    finally:
        for child in children:
            child.kill()
    assert [child.wait() for child in children] == [0, 0]
    assert lengths == {20_000, 20_500}
    assert reads > 30
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_threads_of_one_process_do_not_interfere(tmp_path):
    path = tmp_path / "run.npz"

    def write(number):
        for _ in range(30):
            checkpoint.save(path, {"a": 1}, {"x": np.full(4000, number)})
            x = checkpoint.load(path, {"a": 1})["x"]
            assert np.all(x == x[0])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_no_pickle_and_a_readable_header(finished):
    with np.load(finished, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    assert header["identity"]["num_steps"] == 640
    assert header["identity"]["kind"] == "a long run"


def test_the_fingerprint_of_a_large_array_does_not_depend_on_its_storage():
    rows = np.arange(3_000_000.0).reshape(-1, 3)
    assert checkpoint.identify("x", rows) == checkpoint.identify("x", jnp.asarray(rows))
    fortran = np.asfortranarray(rows)
    assert checkpoint.identify("x", rows) == checkpoint.identify("x", fortran)
    changed = rows.copy()
    changed[-1, -1] += 1e-9
    assert checkpoint.identify("x", rows) != checkpoint.identify("x", changed)


def test_low_precision_states_resume(tmp_path):
    path = tmp_path / "run.npz"
    cell = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_array(x) else x, CELL)
    inputs = INPUTS.astype(jnp.bfloat16)
    run = RUN | {"num_steps": 320}
    uninterrupted = long_run(cell, jnp.zeros(3, jnp.bfloat16), inputs, **run)
    run_and_stop(2, cell, jnp.zeros(3, jnp.bfloat16), inputs, checkpoint=path, **run)
    resumed = long_run(cell, jnp.zeros(3, jnp.bfloat16), inputs, checkpoint=path, **run)
    assert resumed.state.dtype == jnp.bfloat16
    assert_equal(resumed, uninterrupted)


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    """Two networks with the history of four epochs and two spectra, and their file."""
    fresh = lejax.populations.initialize_population(
        lambda key: lejax.cells.RNNCell(1, 3, key=key),
        lejax.populations.Hyperparameters(scale=jnp.ones(2)),
        2,
        key=jr.key(0),
    )
    histories = lambda p: (
        p.training_loss,
        p.validation_loss,
        p.exponents,
        p.standard_error,
        p.unresolved,
        p.spectrum_epochs,
    )
    losses, spectra = jnp.ones((2, 5)), jnp.zeros((2, 2, 3))
    history = (losses[:, 1:], losses, spectra, spectra, spectra.astype(jnp.int32))
    trained = eqx.tree_at(histories, fresh, (*history, jnp.array([0, 4], jnp.int32)))
    path = tmp_path_factory.mktemp("population") / "population.npz"
    lejax.populations.save_population(path, trained)
    return fresh, trained, checkpoint.read(path)


def test_a_population_comes_back_with_its_history(population, tmp_path):
    fresh, trained, content = population
    path = tmp_path / "population.npz"
    checkpoint.save(path, *content)
    for like in (fresh, trained):
        loaded = lejax.populations.load_population(path, like)
        weights = [eqx.filter(p.networks, eqx.is_inexact_array) for p in (loaded, trained)]
        assert_equal(*weights)
        assert_equal(jr.key_data(loaded.key), jr.key_data(trained.key))
        assert (loaded.epoch, loaded.exponents.shape) == (4, (2, 2, 3))
        assert loaded.spectrum_epochs.tolist() == [0, 4]
    (tmp_path / "link.npz").symlink_to(path)  # reading through a link is allowed
    assert lejax.populations.load_population(tmp_path / "link.npz", fresh).epoch == 4
    with pytest.raises(ValueError, match="is a symbolic link"):
        lejax.populations.save_population(tmp_path / "link.npz", fresh)


POPULATIONS = {
    "one network less": {".networks.cell.weight_hh": np.zeros((1, 3, 3))},
    "another dtype": {".networks.cell.weight_hh": np.zeros((2, 3, 3), np.float32)},
    "no weights": {".networks.cell.weight_hh": None},
    "a leaf too many": {".networks.cell.more": np.zeros(2)},
    "keys of another kind": {".key": np.zeros((2, 4), np.uint32)},
    "more evaluations than epochs": {".validation_loss": np.ones((2, 7))},
    "fewer evaluations than epochs": {".validation_loss": np.ones((2, 3))},
    "losses of one network": {".training_loss": np.ones((1, 4))},
    "losses without epochs": {".training_loss": np.ones(2)},
    "a spectrum too many": {".exponents": np.zeros((2, 3, 3))},
    "spectra of another size": {".exponents": np.zeros((2, 2, 4))},
    "spectra to come": {".spectrum_epochs": np.array([0, 5], np.int32)},
    "spectra twice": {".spectrum_epochs": np.array([4, 4], np.int32)},
    "spectra before the start": {".spectrum_epochs": np.array([-1, 4], np.int32)},
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_an_impossible_population_is_refused(population, tmp_path, name):
    fresh, _, (identity, arrays) = population
    path = tmp_path / "population.npz"
    arrays = {n: a for n, a in (arrays | POPULATIONS[name]).items() if a is not None}
    checkpoint.save(path, identity, arrays)
    with pytest.raises(ValueError, match=r"population\.npz' is damaged: it") as caught:
        lejax.populations.load_population(path, fresh)
    assert "\n" not in str(caught.value)
