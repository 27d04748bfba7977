"""Sweeps: they equal a loop over their members, in any batches, on any devices, after any interruption."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType

import lejax
from lejax._core import checkpoint
from lejax.run import Grid, _program, sweep, to_xarray


GRID = Grid(a=np.linspace(0.2, 1.4, 5), start=0.1 * np.asarray(jr.normal(jr.key(0), (3, 2))))
COLLECTIVES = ("all-reduce", "all-gather", "collective-permute", "all-to-all", "reduce-scatter")


def henon(member):
    cell = lejax.systems.Henon(member["a"], 0.3)
    return lejax.lyapunov_spectrum(cell, member["start"], num_steps=150, transient=10)


def one_device():
    return jax.make_mesh(
        (1,), ("member",), devices=jax.local_devices()[:1], axis_types=(AxisType.Auto,)
    )


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def swept():
    return sweep(henon, GRID, batch_size=4)


def test_a_sweep_equals_the_loop_over_members(swept):
    assert swept.exponents.shape == (5, 3, 2)
    assert swept.frame.shape == (5, 3, 2, 2)
    assert isinstance(swept.exponents, np.ndarray)
    for i, j in [(0, 0), (2, 1), (4, 2)]:
        one = henon({"a": GRID.axes["a"][i], "start": GRID.axes["start"][j]})
        if one.exponents[0] < 0:  # in chaos the digits differ
            np.testing.assert_allclose(swept.exponents[i, j], one.exponents, atol=1e-8)
        np.testing.assert_allclose(swept.exponents[i, j].sum(), np.log(0.3), atol=1e-9)


def count_compiled():
    compiled = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return compiled


def test_one_program_serves_any_number_of_members():
    members = np.linspace(0.1, 0.9, 23)
    traces = []

    def function(x):
        traces.append(None)
        return jnp.sin(x) ** 2

    compiled = count_compiled()
    for size in (4, 5, 23):  # one batch; one batch and one member; five batches and three members
        compiled.clear()
        out = sweep(function, members[:size], batch_size=4)
        assert len(compiled) == 1
        np.testing.assert_allclose(out, np.sin(members[:size]) ** 2, rtol=1e-14)
    compiled.clear()
    sweep(function, members)
    assert len(compiled) == 1


def test_a_mesh_from_make_mesh():
    members = np.linspace(0.1, 0.9, 5)
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
    np.testing.assert_allclose(sweep(jnp.sin, members, mesh=mesh), np.sin(members), rtol=1e-14)
    with jax.set_mesh(mesh):  # a sweep has a mesh of its own
        np.testing.assert_allclose(sweep(jnp.sin, members), np.sin(members), rtol=1e-14)
        np.testing.assert_allclose(sweep(jnp.sin, jnp.array(members)), np.sin(members), rtol=1e-14)


def test_no_collectives_on_two_devices():
    assert jax.device_count() == 2
    network = lejax.cells.RNNCell(0, 4, key=jr.key(0))

    def run(gain):
        cell = eqx.tree_at(lambda c: c.weight_hh, network, gain * network.weight_hh)
        method = lejax.SequentialQR(orthonormalizer=lejax.Cholesky())  # guarded
        return lejax.lyapunov_spectrum(cell, jnp.ones(4), num_steps=200, method=method)

    gains = np.linspace(0.5, 3, 4)
    mesh = jax.make_mesh((2,), ("member",), axis_types=(AxisType.Auto,))
    hlo = _program.lower(run, gains, mesh, 4).compile().as_text()
    assert not [name for name in COLLECTIVES if name in hlo]
    # These words appear in programs with communication between devices.
    both = jax.shard_map(
        lambda x: jax.lax.psum(x, "member"),
        mesh=mesh,
        in_specs=jax.sharding.PartitionSpec("member"),
        out_specs=jax.sharding.PartitionSpec(),
    )
    assert "all-reduce" in jax.jit(both).lower(jnp.ones(2)).compile().as_text()


def test_each_device_computes_its_part():
    sharding = _program.placement(
        jax.make_mesh((2,), ("member",), axis_types=(AxisType.Auto,))
    ).batch
    x = jax.device_put(np.arange(6.0), sharding)
    assert [shard.data.tolist() for shard in x.addressable_shards] == [[0, 1, 2], [3, 4, 5]]


def test_a_grid_varies_its_last_axis_fastest_and_is_never_in_memory():
    grid = Grid(
        network={"w": np.arange(6.0).reshape(3, 2)}, gain=np.array([1.0, 10.0]), seed=np.arange(4)
    )
    assert grid.shape == (3, 2, 4)

    def function(member):
        return member["gain"] * member["network"]["w"] + 100 * member["seed"]

    out = sweep(function, grid, batch_size=5, mesh=one_device())
    w, gain, seed = grid.axes["network"]["w"], grid.axes["gain"], grid.axes["seed"]
    expected = (gain[:, None] * w[:, None])[:, :, None] + 100 * seed[:, None]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(grid.coordinates["network"], [0, 1, 2])
    np.testing.assert_array_equal(grid.coordinates["gain"], [1, 10])


def test_networks_functions_and_keys_may_be_members():
    cells = eqx.filter_vmap(lambda key: lejax.cells.RNNCell(0, 3, key=key))(jr.split(jr.key(0), 3))
    keys = jr.split(jr.key(1), 2)

    def function(member):
        start = jr.normal(member["key"], (3,))
        return lejax.unroll(member["cell"], start, num_steps=4)

    out = sweep(function, Grid(cell=cells, key=keys), batch_size=2)
    cell = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, cells)
    one = function({"cell": cell, "key": keys[1]})
    np.testing.assert_allclose(out[1, 1], one, rtol=1e-12)


def test_members_of_numpy_take_the_precision_of_jax_without_a_warning():
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lejax.run.sweep(jnp.sqrt, np.linspace(0.0, 1.0, 8), batch_size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.sqrt(np.linspace(0.0, 1.0, 8)), rtol=1e-6)


def test_modules_keep_their_weights_as_arguments():
    class Scale(eqx.Module):
        factor: jax.Array

        def __call__(self, x):
            return self.factor * x

    mesh = one_device()
    one, other = (
        _program.lower(Scale(jnp.arange(3.0) * i), np.zeros((4, 3)), mesh, 2).as_text()
        for i in (1, 2)
    )
    assert one == other
    out = sweep(Scale(jnp.arange(3.0)), np.ones((4, 3)))
    np.testing.assert_array_equal(out, np.broadcast_to(np.arange(3.0), (4, 3)))


STARTS = np.concatenate([0.1 * np.asarray(jr.normal(jr.key(3), (7, 2))), [[3.0, 3.0]]])


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        (lejax.SequentialQR(every=4, orthonormalizer=lejax.Householder()), 0),
        # A guard takes one branch for the complete batch, and the branches round differently.
        (lejax.SequentialQR(every=1), 1e-13),
        (lejax.SequentialQR(every=1, orthonormalizer=lejax.Cholesky()), 1e-13),
        (lejax.SequentialQR(), 1e-8),  # the interval is one for the batch too
    ],
)
def test_a_diverged_member_leaves_the_others_as_they_are(method, tolerance):
    def run(start):
        return lejax.lyapunov_spectrum(lejax.systems.Henon(), start, num_steps=200, method=method)

    sick = sweep(run, STARTS, mesh=one_device())
    healthy = sweep(run, STARTS[[0, 1, 2, 3, 4, 5, 6, 0]], mesh=one_device())
    np.testing.assert_array_equal(sick.result == lejax.RESULTS.successful, 7 * [True] + [False])
    np.testing.assert_array_equal(sick.result == lejax.RESULTS.nonfinite, 7 * [False] + [True])
    assert 0 < sick.diagnostics.first_bad_step[7] < 20
    assert np.isnan(sick.exponents[7]).all()
    np.testing.assert_array_equal(sick.state[:7], healthy.state[:7])
    for name in ("exponents", "standard_error", "block_exponents", "frame"):
        a, b = getattr(sick, name)[:7], getattr(healthy, name)[:7]
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


SCRIPT = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
jax.config.update("jax_enable_x64", True)
import lejax

def run(a):
    return lejax.lyapunov_spectrum(lejax.systems.Henon(a, 0.3), jnp.zeros(2), num_steps=300)

members = np.linspace(0.2, 1.4, 39)
"""


SLOWLY = """
import time
from lejax._core import checkpoint
save = checkpoint.save
def slowly(*args):  # leaves time to kill this process before it ends
    save(*args)
    time.sleep(0.05)

checkpoint.save = slowly
"""


def test_kill_9_loses_at_most_one_batch(tmp_path):
    script = SCRIPT + SLOWLY + "lejax.run.sweep(run, members, batch_size=2, checkpoint=sys.argv[1])"
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while len(done := sorted(tmp_path.glob("batch-*.npz"))) < 3:
        assert child.poll() is None
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = sorted(tmp_path.glob("batch-*.npz"))
    assert 3 <= len(done) < 20
    before = {path: path.stat().st_mtime_ns for path in done}

    scope = {}
    exec(SCRIPT, scope)
    run, members = scope["run"], scope["members"]
    uninterrupted = sweep(run, members, batch_size=2)
    assert_equal(sweep(run, members, batch_size=2, checkpoint=tmp_path), uninterrupted)
    assert {path: path.stat().st_mtime_ns for path in done} == before
    assert len(list(tmp_path.glob("batch-*.npz"))) == 20
    # The sweep is complete: nothing is compiled, and the batch size need not be given again.
    compiled = count_compiled()
    assert_equal(sweep(run, members, checkpoint=tmp_path), uninterrupted)
    assert len(compiled) == 0


def square(x):
    return x**2


def test_a_checkpoint_of_another_sweep_is_refused(tmp_path):
    members = np.arange(6.0)
    sweep(square, members, batch_size=2, checkpoint=tmp_path)
    for change, message in {
        "other members": (
            {"members": members + 1},
            r"its members is float64\[6\] with fingerprint \w+, but here it is float64",
        ),
        "another shape": ({"members": np.arange(7.0)}, r"its shape is \[6\], but here it is \[7\]"),
        "other batches": ({"batch_size": 4}, "its batch_size is 2, but here it is 4"),
        "another mesh": (
            {"mesh": one_device()},
            "its number of devices is 2, but here it is 1",
        ),
        "another function": (
            {"function": lambda x: x**3},
            r"its function is square with fingerprint \w+, but here it is <lambda>",
        ),
    }.values():
        arguments = {"function": square, "members": members, "batch_size": 2} | change
        with pytest.raises(ValueError, match=message):
            sweep(**arguments, checkpoint=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"must be a folder, but .* is a file"):
        sweep(square, members, checkpoint=tmp_path / "file")


@pytest.fixture
def finished(tmp_path):
    sweep(square, np.arange(6.0), batch_size=2, checkpoint=tmp_path)
    return tmp_path


def test_exchanged_batches_are_refused(finished):
    first, second = finished / "batch-000000.npz", finished / "batch-000001.npz"
    first.rename(finished / "aside")
    second.rename(first)
    (finished / "aside").rename(second)
    with pytest.raises(ValueError, match=r"batch-000000\.npz' .* its batch is 1, but here it is 0"):
        sweep(square, np.arange(6.0), checkpoint=finished)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "it lacks 0"),
        ({"0": np.zeros(2), "1": np.zeros(2)}, "it also holds 1"),
        ({"0": np.zeros(3)}, r"its 0 is float64\[3\], where float64\[2\] is needed"),
        ({"0": np.zeros((2, 1))}, r"its 0 is float64\[2, 1\], where float64\[2\] is needed"),
        ({"0": np.zeros(2, np.float32)}, r"its 0 is float32\[2\], where float64\[2\] is needed"),
    ],
)
def test_a_batch_of_other_contents_is_refused(finished, arrays, message):
    path = finished / "batch-000002.npz"
    checkpoint.save(path, checkpoint.read(path).identity, arrays)
    with pytest.raises(ValueError, match=rf"batch-000002\.npz' is damaged: {message}\."):
        sweep(square, np.arange(6.0), checkpoint=finished)


@pytest.mark.parametrize("batch_size", [0, -2, 2.0, "2", True, None, [2]])
def test_a_head_without_a_batch_size_is_refused(finished, batch_size):
    path = finished / "sweep.npz"
    checkpoint.save(path, checkpoint.read(path).identity | {"batch_size": batch_size}, {})
    with pytest.raises(ValueError, match=r"sweep\.npz' is damaged: its batch_size is "):
        sweep(square, np.arange(6.0), checkpoint=finished)


def test_a_link_or_a_value_that_is_no_path_is_refused(tmp_path):
    with pytest.raises(TypeError, match="checkpoint must be a path, got 3"):
        sweep(square, np.arange(6.0), checkpoint=3)
    with pytest.raises(ValueError, match="holds a NUL"):
        sweep(square, np.arange(6.0), checkpoint="a\0b")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")  # a folder may be a link
    sweep(square, np.arange(6.0), batch_size=2, checkpoint=tmp_path / "link")
    path = tmp_path / "folder" / "batch-000001.npz"
    path.unlink()
    path.symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"batch-000001\.npz' is a symbolic link"):
        sweep(square, np.arange(6.0), checkpoint=tmp_path / "link")
    assert not (tmp_path / "mine").exists()


def test_constants_of_the_function_are_part_of_it(tmp_path):
    def times(factors):
        return lambda x: x * factors

    factors = np.linspace(1.0, 2.0, 500)
    sweep(times(factors), np.arange(3.0), checkpoint=tmp_path)
    sweep(times(factors.copy()), np.arange(3.0), checkpoint=tmp_path)
    changed = factors.copy()
    changed[250] = 7.0
    with pytest.raises(ValueError, match=r"its function is <lambda> with fingerprint"):
        sweep(times(changed), np.arange(3.0), checkpoint=tmp_path)


def test_batches_fit_memory(monkeypatch):
    def greedy(x):
        return jnp.sum(jnp.sin(x * jnp.ones((1000, 100))) @ jnp.ones((100, 100)))  # 800 kB or more

    members, mesh = np.arange(64.0), one_device()
    size, _, compiled = _program.lower_what_fits(greedy, members, mesh, 64)
    assert size == 64
    needed = _program._bytes_needed(compiled)
    monkeypatch.setattr(_program, "_DEFAULT_CAPACITY", needed // 4)
    size, _, compiled = _program.lower_what_fits(greedy, members, mesh, 64)
    assert 1 <= size <= 16
    assert _program._bytes_needed(compiled) <= needed // 4
    monkeypatch.setattr(_program, "_DEFAULT_CAPACITY", 1)
    assert _program.lower_what_fits(greedy, members, mesh, 64)[0] == 1


def test_capacity_is_half_of_the_smallest_device_or_a_gibibyte():
    def capacity(*stats):
        devices = np.array([SimpleNamespace(memory_stats=lambda s=s: s) for s in stats])
        return _program._capacity(SimpleNamespace(devices=devices))

    assert capacity({"bytes_limit": 800}, {"bytes_limit": 600}) == 300
    assert capacity({"bytes_limit": 2**40}, None) == capacity({}, None) == 2**30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": 1.0}, "members holds no array"),
        ({"members": np.float64(1.0)}, "members is a scalar"),
        ({"members": {"a": np.zeros(2), "b": np.zeros(3)}}, r"\['a'\] has 2, members\['b'\] has 3"),
        ({"members": np.zeros((0, 2))}, "has length 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"mesh": 2}, "mesh must be a jax.sharding.Mesh, got 2"),
        ({"function": lambda x: {"a": x, "b": "c"}}, r"output\['b'\] is 'c'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sweep(**({"function": square, "members": np.zeros(3)} | arguments))
    with pytest.raises(ValueError, match="at least one axis"):
        Grid()


def test_progress_is_shown_only_when_asked_for(capsys):
    sweep(square, np.zeros(3))
    assert capsys.readouterr() == ("", "")
    sweep(square, np.zeros(3), progress=True)
    assert "/3" in capsys.readouterr().err


def test_to_xarray(swept):
    xarray = pytest.importorskip("xarray", reason="pip install xarray")
    data = to_xarray(swept, GRID)
    assert isinstance(data, xarray.Dataset)
    assert data.exponents.dims == ("a", "start", "exponents_0")
    assert data.frame.dims == ("a", "start", "frame_0", "frame_1")
    assert data.result.dims == ("a", "start")
    np.testing.assert_array_equal(data.a, GRID.axes["a"])
    np.testing.assert_array_equal(
        data.exponents.sel(a=1.4, method="nearest").isel(start=1), swept.exponents[-1, 1]
    )
    plain = to_xarray({"x": (np.zeros((3, 2)), np.ones(3))}, np.zeros((3, 5)))
    assert dict(plain.sizes) == {"member": 3, "x.0_0": 2}
    assert to_xarray(np.ones(3), np.zeros(3))["value"].dims == ("member",)
    alone = to_xarray({"x": np.zeros((3, 2)), "y": np.arange(3)})
    assert dict(alone.sizes) == {"member": 3, "x_0": 2}
    np.testing.assert_array_equal(alone.member, [0, 1, 2])
    np.testing.assert_array_equal(alone.y, [0, 1, 2])
    with pytest.raises(ValueError, match=r"results differ in length: .*has 3, .*has 2"):
        to_xarray({"x": np.zeros(3), "y": np.zeros(2)})
    with pytest.raises(TypeError, match="results holds no array"):
        to_xarray({})
    with pytest.raises(ValueError, match=r"x of the results has shape \(4,\), but the members"):
        to_xarray({"x": np.zeros(4)}, np.zeros(3))
    with pytest.raises(ValueError, match="dt is both an axis of the members and a result"):
        to_xarray({"dt": np.zeros(2)}, Grid(dt=np.ones(2)))


def test_to_xarray_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match="pip install xarray"):
        to_xarray(np.zeros(3), np.zeros(3))


PROCESS = """
address, rank, folder = sys.argv[1:]
jax.distributed.initialize(
    coordinator_address=address, num_processes=2, process_id=int(rank), local_device_ids=[0, 1]
)
assert jax.process_count() == 2 and len(jax.local_devices()) == 2
shared = sys.argv[3] + "/shared"
for checkpoint in (None, shared, shared):
    result = lejax.run.sweep(run, members, batch_size=4, checkpoint=checkpoint)
    np.savez(f"{folder}/{rank}-{checkpoint is None}.npz", *jax.tree.leaves(result))
"""


@pytest.mark.slow  # two processes that start JAX
def test_two_processes_share_a_sweep(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT + PROCESS, address, str(rank), str(tmp_path)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for rank in range(2)
    ]
    try:
        assert [child.wait(timeout=300) for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
    scope = {}
    exec(SCRIPT, scope)
    uninterrupted = jax.tree.leaves(sweep(scope["run"], scope["members"], batch_size=4))
    for name in ("0-True", "1-True", "0-False", "1-False"):
        with np.load(tmp_path / f"{name}.npz") as file:
            assert_equal([file[f"arr_{i}"] for i in range(len(uninterrupted))], uninterrupted)
    # One process can continue a sweep of two.
    assert len(list((tmp_path / "shared").glob("batch-*.npz"))) == 10
    alone = sweep(scope["run"], scope["members"], checkpoint=tmp_path / "shared")
    assert_equal(jax.tree.leaves(alone), uninterrupted)
