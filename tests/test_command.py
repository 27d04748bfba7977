"""The command: right numbers, strict files, one sentence for bad input."""

import codecs
import errno
import html
import io
import json
import os
import re
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import safetensors.numpy

import lejax
from lejax.__main__ import main
from lejax._command_line import command, output, shared
from lejax._spectrum.table import tabulate
from lejax.run._chunked_run import ChunkedRun


SMALL = ("spectrum", "-k", "2", "--steps", "60", "--transient", "10")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command inside an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        try:
            status = main([str(arg) for arg in argv])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


def strict_json(path):
    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def save_rnn(path, recurrent, bias=1.0, **more):
    """An `nn.RNN` with 2 inputs and 3 units."""
    arrays = {
        "weight_ih_l0": np.ones((3, 2)),
        "weight_hh_l0": np.asarray(recurrent),
        "bias_ih_l0": np.full(3, bias),
        "bias_hh_l0": np.zeros(3),
    }
    np.savez(path, **arrays | more)


@pytest.fixture
def linear(tmp_path):
    """A relu network whose units all stay positive: its exponents are log 1/2, log 1/4, log 1/8."""
    save_rnn(tmp_path / "linear.npz", np.diag([0.5, 0.25, 0.125]))
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).uniform(size=(300, 2)))
    return ("spectrum", "linear.npz", "--activation", "relu")


def python(*argv):
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=300)


def test_help_and_version_do_not_import_jax():
    script = """
import sys
from lejax.__main__ import main
commands = [[name, "--help"] for name in ("spectrum", "report", "info")]
for argv in (["--help"], ["--version"], *commands, ["spectrum", "-k", "0"]):
    try:
        main(argv)
    except SystemExit as stop:
        print("status", stop.code)
heavy = {"jax", "jaxlib", "equinox", "numpy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("status 0") == 5
    assert done.stdout.count("status 2") == 1
    assert f"lejax {lejax.__version__}\n" in done.stdout
    assert "--qr-every N|auto" in done.stdout


def test_as_a_module_in_its_own_process(tmp_path):
    done = python(
        "-W", "error", "-m", "lejax", *SMALL, "--dtype", "float32", "--out", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    assert "Kaplan-Yorke dimension" in done.stdout
    assert "%|" not in done.stderr  # no bar where nobody looks
    assert strict_json(tmp_path / "out" / "spectrum.json")["settings"]["dtype"] == "float32"
    done = python("-m", "lejax", "spectrum", "missing.npz")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lejax spectrum: there is no file 'missing.npz'.\n"


def test_the_shipped_network_by_default(run, tmp_path):
    status, out, err = run("spectrum", "--steps", 400, "--seed", 3)
    assert (status, err) == (0, "")
    content = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    cell = lejax.data.digits_gru()
    expected = lejax.lyapunov_spectrum(
        cell,
        cell.initial_state(),
        lejax.data.digits_inputs(),
        num_steps=400,
        transient=80,
        key=jr.key(3),
    )
    np.testing.assert_allclose(content["exponents"], expected.exponents, atol=1e-12)
    np.testing.assert_allclose(content["standard_error"], expected.standard_error, rtol=1e-9)
    assert content["kaplan_yorke_dimension"] == 0
    assert content["units"] == "nats per step"
    assert content["nonfinite"] == {}
    assert content["versions"]["jax"] == jax.__version__
    for exponent in expected.exponents:
        assert f"{exponent:.5f}" in out

    with np.load(tmp_path / "lejax-spectrum" / "spectrum.npz") as arrays:
        np.testing.assert_array_equal(arrays["exponents"], content["exponents"])
        assert arrays["frame"].shape == (32, 32)
        np.testing.assert_allclose(arrays["state"], expected.state, atol=1e-12)
    image = (tmp_path / "lejax-spectrum" / "spectrum.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert image.endswith(b"IEND\xaeB`\x82")
    names = {path.name for path in (tmp_path / "lejax-spectrum").iterdir()}
    assert names == {"spectrum.json", "spectrum.npz", "spectrum.png"}


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv"])
def test_a_network_and_inputs_from_files(run, linear, tmp_path, suffix):
    inputs = np.load(tmp_path / "inputs.npy")
    if suffix == "npz":
        np.savez(tmp_path / "inputs.npz", inputs)
    elif suffix == "csv":
        np.savetxt(tmp_path / "inputs.csv", inputs, delimiter=",")
    status, out, _ = run(
        *linear, "--inputs", f"inputs.{suffix}", "--transient", 60, "--dt", 0.5, "--no-plot"
    )
    assert status == 0
    content = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    np.testing.assert_allclose(content["exponents"], np.log([0.5, 0.25, 0.125]) / 0.5, atol=1e-9)
    assert content["units"] == "nats per unit time"
    assert content["num_steps"] == 240
    assert f"linear.npz, RNN(2, 3), driven by inputs.{suffix}" in out
    assert not (tmp_path / "lejax-spectrum" / "spectrum.png").exists()


def test_zero_inputs_are_said_and_lost_directions_are_null(run, tmp_path):
    save_rnn(tmp_path / "dead.npz", np.eye(3), bias=-1.0)  # no unit ever fires: the Jacobian is 0
    status, out, _ = run("spectrum", "dead.npz", "--activation", "relu", "--steps", 40)
    assert status == 0
    assert "driven by zeros" in out
    assert "-inf" in out
    content = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    assert content["exponents"] == [None] * 3
    assert [content["nonfinite"][f"exponents[{i}]"] for i in range(3)] == ["-inf"] * 3
    assert content["kaplan_yorke_dimension"] == 0
    assert (tmp_path / "lejax-spectrum" / "spectrum.png").exists()


def test_upper_bounds_are_marked(run, tmp_path):
    # The second direction shrinks 1e20 times faster than the first one it leans on.
    recurrent = [[0.5, 0.5, 0.0], [0.0, 1e-20, 0.0], [0.0, 0.0, 0.25]]
    save_rnn(tmp_path / "steep.npz", recurrent)
    status, out, _ = run(
        "spectrum", "steep.npz", "--activation", "relu", "--steps", 60, "--transient", 60
    )
    assert status == 0
    content = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    np.testing.assert_allclose(content["exponents"][:2], np.log([0.5, 0.25]), atol=1e-9)
    assert content["unresolved"][2] > 0
    assert "\n   3 <" in out
    assert "1 of 3 are upper bounds" in out


def test_what_stands_below_an_upper_bound_is_one():
    lorenz = lejax.systems.Flow(lejax.systems.Lorenz63(), 0.01)
    spectrum = lejax.lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=100)
    for counts, bounds in (([0, 3, 0], [2, 3]), ([1, 0, 0], [1, 2, 3]), ([0, 0, 0], [])):
        marked = eqx.tree_at(lambda s: s.diagnostics.unresolved, spectrum, jnp.array(counts))
        lines = output._columns(tabulate(marked), 20)
        assert [int(line[:4]) for line in lines[1:4] if line[5] == "<"] == bounds
        assert any(line.startswith("<") for line in lines) == bool(bounds)
        assert not bounds or lines[4].startswith(f"< {len(bounds)} of 3 are upper bounds")


def test_too_few_exponents_for_the_dimension(run, tmp_path):
    save_rnn(tmp_path / "grow.npz", np.diag([1.01, 1.02, 0.5]))
    status, out, _ = run(
        "spectrum", "grow.npz", "--activation", "relu", "--steps", 50, "-k", 1, "--no-plot"
    )
    assert status == 0
    assert "not reached: it needs more than 1 exponent (-k)" in out
    assert "of these exponents alone" in out
    content = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    assert content["kaplan_yorke_dimension"] is None
    assert content["nonfinite"]["kaplan_yorke_dimension"] == "nan"


def test_float32_and_an_interval_that_is_found(run, tmp_path):
    status, out, _ = run(*SMALL, "--dtype", "float32", "--qr-every", "auto", "--no-plot")
    assert status == 0
    every = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")["longest_interval"]
    assert every > 1
    assert f"orthonormalized after {every} steps at most" in out
    with np.load(tmp_path / "lejax-spectrum" / "spectrum.npz") as arrays:
        assert arrays["exponents"].dtype == np.float32


def test_each_derived_number_has_its_own_error():
    henon = lejax.systems.Henon()
    spectrum = lejax.lyapunov_spectrum(henon, jnp.zeros(2), num_steps=600, transient=50)
    made = output.make_report(spectrum, {}, {}, {})
    dimension = lejax.jackknife(spectrum, lambda e: lejax.kaplan_yorke_dimension(e, 2))
    entropy = lejax.jackknife(spectrum, lejax.kolmogorov_sinai_entropy)
    np.testing.assert_allclose(made.dimension, dimension, rtol=1e-9)
    np.testing.assert_allclose(made.entropy, entropy, rtol=1e-9)
    assert made.dimension[1] != pytest.approx(made.entropy[1], rel=0.1)


def test_the_interval_is_that_of_the_function(run, tmp_path):
    options = ("--qr-every", "auto", "--steps", 300, "--blocks", 5, "-k", 6)
    assert run("spectrum", *options, "--transient", 0, "--seed", 7, "--no-plot")[0] == 0
    content = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    cell = lejax.data.digits_gru()
    run_of = {"num_steps": 300, "num_exponents": 6, "num_blocks": 5}
    expected = lejax.lyapunov_spectrum(
        cell, cell.initial_state(), lejax.data.digits_inputs(), key=jr.key(7), **run_of
    )
    found = expected.diagnostics
    assert content["longest_interval"] == int(found.longest_interval) > 1
    assert content["num_orthonormalizations"] == int(found.num_orthonormalizations) < 300
    np.testing.assert_allclose(content["exponents"], expected.exponents, atol=1e-12)
    np.testing.assert_allclose(content["rounding_error"], found.rounding_error, rtol=1e-6)


def test_info(run):
    status, out, err = run("info")
    assert (status, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["jax"] == jax.__version__
    assert lines["lejax"] == lejax.__version__
    assert str(jax.devices()[0]) in lines["devices"]
    assert lines["x64"].startswith("on")


class Full:
    """A stdout on which there is no room."""

    encoding = "utf-8"

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self):
        pass


def test_the_files_are_there_before_the_table_is_printed(run, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Full())
    status, _, err = run(*SMALL, "--no-plot", "--out", "kept")
    assert status == 1
    assert err == (
        "lejax spectrum: cannot print: No space left on device, but the results are in kept.\n"
    )
    content = strict_json(tmp_path / "kept" / "spectrum.json")
    assert len(content["exponents"]) == 2
    status, _, err = run("info")
    assert (status, err) == (1, "lejax info: cannot print: No space left on device.\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device_and_a_closed_pipe(unbuffered):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "lejax"]
    with open("/dev/full", "w") as full:
        for line in ("--help", "--version", "spectrum --help"):
            done = subprocess.run(
                [*command, *line.split()], stdout=full, stderr=subprocess.PIPE, env=environment
            )
            assert done.returncode == 1
            assert done.stderr == b"lejax: cannot print: No space left on device.\n"
        done = subprocess.run([*command, "spectrum", "-k", "x"], stderr=full, env=environment)
        assert done.returncode == 2
    source, sink = os.pipe()
    os.close(source)
    done = subprocess.run(
        [*command, "--help"], stdout=sink, stderr=subprocess.PIPE, env=environment
    )
    os.close(sink)
    assert (done.returncode, done.stderr) == (1, b"lejax: cannot print: Broken pipe.\n")


@pytest.mark.slow  # starts JAX
def test_a_pipe_that_is_closed_loses_nothing(tmp_path):
    command = [sys.executable, "-m", "lejax", *SMALL, "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.close()
        said = child.stderr.read()
    assert said.startswith(b"lejax spectrum: cannot print: Broken pipe, but the results are in")
    assert child.returncode == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"spectrum.json", "spectrum.npz", "spectrum.png"}


@pytest.mark.slow  # starts JAX
@pytest.mark.parametrize("platform", ["abacus", "cuda"])
def test_a_platform_that_is_not_there(platform, tmp_path):
    for line in ("info", "spectrum"):
        done = subprocess.run(
            [sys.executable, "-m", "lejax", line],
            env=os.environ | {"JAX_PLATFORMS": f"{platform}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            pytest.skip(f"this machine has {platform}")
        assert (done.returncode, done.stdout) == (2, "")
        sentence = f"JAX finds no device of JAX_PLATFORMS='{platform}', which is unknown or"
        assert done.stderr.startswith(f"lejax {line}: {sentence}")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_utf8(run, linear, tmp_path, monkeypatch):
    odd = os.fsdecode(b"caf\xe9")
    os.replace(tmp_path / "linear.npz", tmp_path / f"{odd}.npz")
    os.replace(tmp_path / "inputs.npy", tmp_path / f"{odd}.npy")
    line = ("spectrum", f"{odd}.npz", "--activation", "relu", "--inputs", f"{odd}.npy")
    status, out, err = run(*line, "--out", odd)
    assert (status, err) == (0, "")
    assert "driven by caf\\xe9.npy" in out
    assert f"Wrote caf\\xe9{os.sep}spectrum.json" in out
    settings = strict_json(tmp_path / odd / "spectrum.json")["settings"]
    assert settings["network"] == "caf\\xe9.npz"
    status, out, err = run("spectrum", f"{odd}{odd}.npz")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1


def test_what_the_terminal_cannot_show_is_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    shared.print_text("caf\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert written.getvalue() == b"caf\\xe9\n"


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, b""])
def test_a_csv_with_a_byte_order_mark(run, linear, tmp_path, mark):
    text = "\n".join(f"{t % 3 / 3},{t % 5 / 5}" for t in range(60))
    (tmp_path / "i.csv").write_bytes(mark + text.encode())
    assert run(*linear, "--inputs", "i.csv", "--no-plot")[0] == 0
    content = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    np.testing.assert_allclose(sum(content["exponents"]), np.log(0.5 * 0.25 * 0.125), rtol=1e-12)
    assert content["num_steps"] == 60


@pytest.mark.parametrize("option", ["--out", "--inputs", None])
def test_a_nul_is_no_path(run, option, tmp_path):
    status, out, err = run("spectrum", *([option] if option else []), "a\0b")
    assert (status, out) == (2, "")
    assert "must be a path, which holds no NUL, got 'a\\x00b'" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def write_bad_files(folder):
    save_rnn(folder / "rnn.npz", np.eye(3) / 2)
    save_rnn(folder / "nan.npz", np.full((3, 3), np.nan))
    (folder / "cut.npz").write_bytes((folder / "rnn.npz").read_bytes()[:300])
    (folder / "cut.safetensors").write_bytes(b"\xff" * 40)
    np.save(folder / "wide.npy", np.ones((9, 5)))
    np.save(folder / "flat.npy", np.ones(9))
    np.save(folder / "complex.npy", np.ones((9, 2), complex))
    np.savez(folder / "two.npz", a=np.ones((9, 2)), b=np.ones((9, 2)))
    np.save(folder / "nan.npy", np.where(np.arange(18).reshape(9, 2) == 13, np.nan, 1.0))
    np.save(folder / "huge.npy", np.full((9, 2), 1e300))
    np.save(folder / "short.npy", np.ones((9, 2)))
    (folder / "head.csv").write_text("a,b\n1,2\n")
    (folder / "empty.csv").write_text("\n")
    (folder / "file").write_text("")
    (folder / ".npy").mkdir()


BAD = [
    ("-k 40", "-k is 40, but the state of the shipped network has 32 numbers"),
    ("-k 0", "-k: must be a whole number from 1 to 2147483647, got '0'"),
    ("-k 2.5", "-k: must be a whole number from 1 to 2147483647, got '2.5'"),
    ("--steps 0", "--steps: must be a whole number from 1 to 2147483647, got '0'"),
    ("--transient 1.5", "--transient: must be a whole number from 0 to 2147483647, got '1.5'"),
    ("--steps 2147483648", "--steps: must be a whole number from 1 to 2147483647"),
    ("--blocks x", "--blocks: must be a whole number from 1 to 2147483647, got 'x'"),
    ("--dt nan", "--dt: must be a positive number, got 'nan'"),
    ("--qr-every never", "--qr-every: must be a whole number from 1 to 2147483647, got 'never'"),
    ("--dtype float16", "--dtype: invalid choice: 'float16'"),
    ("--transient 3176", "--transient is 3176, but there are only 3176 steps in 397 handwritten"),
    ("--steps 3100", "ask for 80 + 3100 steps, but there are 3176 in 397 handwritten"),
    ("--prefix rnn.", "--prefix rnn. describes a MODEL, but none is given"),
    ("none.npz", "there is no file 'none.npz'"),
    ("cut.npz", "'cut.npz' is damaged or truncated"),
    ("cut.safetensors", "'cut.safetensors' is damaged or truncated"),
    ("nan.npz", "'weight_hh_l0' holds 9 non-finite values out of 9"),
    ("rnn.npz", "without --inputs the network is driven by zeros, and --steps must say"),
    (
        "rnn.npz --transient 2147483647 --steps 2147483647",
        "ask for 2147483647 + 2147483647 steps, but fewer than 2147483648 can be run",
    ),
    (
        "rnn.npz --inputs .npy",
        "--inputs .npy cannot be read: '.npy' is a directory; a file was exp",
    ),
    ("rnn.npz --prefix a", "no recurrent network has the prefix 'a'"),
    ("rnn.npz --inputs none.npy", "--inputs none.npy cannot be read: there is no file"),
    (
        "rnn.npz --inputs none.csv",
        "--inputs none.csv cannot be read as numbers and commas: none.csv",
    ),
    ("rnn.npz --inputs wide.npy", "wide.npy has 5 columns, but rnn.npz takes 2 inputs"),
    ("rnn.npz --inputs flat.npy", "has shape (9,), but (steps, inputs) is needed"),
    ("rnn.npz --inputs complex.npy", "has dtype complex128, but inputs are real numbers"),
    ("rnn.npz --inputs two.npz", "two.npz must hold one array, but holds 2"),
    ("rnn.npz --inputs nan.npy", "nan.npy holds nan in row 6, column 1 (counted from 0)"),
    ("rnn.npz --inputs huge.npy --dtype float32", "huge.npy holds inf in row 0, column 0"),
    (
        "rnn.npz --inputs head.csv",
        "head.csv cannot be read as numbers and commas, without a header: could not convert",
    ),
    ("rnn.npz --inputs empty.csv", "empty.csv holds no numbers"),
    ("rnn.npz --inputs short.npy --out file", "cannot write to --out file: File exists"),
    ("rnn.npz --inputs short.npy --out file/a", "cannot write to --out file/a: Not a directory"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gets_one_sentence(run, tmp_path, line, message):
    write_bad_files(tmp_path)
    status, out, err = run("spectrum", *line.split())
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("lejax spectrum: ")
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    assert not (tmp_path / "lejax-spectrum").exists()


def test_no_command_is_one_sentence(run):
    assert run() == (
        2,
        "",
        "lejax: the following arguments are required: COMMAND. Try lejax --help.\n",
    )


@pytest.mark.parametrize("every", ["1", "auto"])
def test_a_diverging_network_names_the_step(run, tmp_path, every):
    # x_t = (10^t - 1) / 9 leaves float64 at t = 310.
    save_rnn(tmp_path / "explode.npz", 10 * np.eye(3))
    status, out, err = run(
        "spectrum", "explode.npz", "--activation", "relu", "--steps", 400, "--qr-every", every
    )
    assert (status, out) == (2, "")
    assert err.startswith("lejax spectrum: explode.npz diverges")
    assert "at step 310." in err
    assert not list((tmp_path / "lejax-spectrum").iterdir())


def test_a_too_long_interval_is_refused(run):
    status, out, err = run("spectrum", "--steps", 200, "--qr-every", 100)
    assert (status, out) == (2, "")
    assert "--qr-every 100 is too long" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
    ],
)
def test_too_little_memory_is_one_sentence(run, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(command, "long_run", fail)
    status, out, err = run(*SMALL)
    assert (status, out) == (2, "")
    assert err.startswith("lejax spectrum: the run does not fit into memory: ")
    assert err.count("\n") == 1


def test_another_error_of_jax_is_not_hidden(run, monkeypatch):
    def fail(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    monkeypatch.setattr(command, "long_run", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        run(*SMALL)


def test_ctrl_c(run, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "long_run", interrupt)
    assert run(*SMALL) == (130, "", "lejax: interrupted.\n")


@pytest.fixture
def stop_in_third_chunk(monkeypatch):
    """Ctrl-C in the third chunk of a long run, once. The chunks that were begun."""
    advance, calls = ChunkedRun.advance, []

    def interrupted(self, position, chunk):
        calls.append(chunk)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(self, position, chunk)

    monkeypatch.setattr(ChunkedRun, "advance", interrupted)
    return calls


LONG = ("--steps", 30_000, "--no-plot")  # three chunks


def test_ctrl_c_with_a_checkpoint_says_how_to_go_on(run, linear, stop_in_third_chunk, tmp_path):
    line = (*linear, *LONG, "--checkpoint", "run.npz")
    sentence = (
        "lejax: interrupted after 18000 of 30000 steps; run the same again to go on from run.npz.\n"
    )
    assert run(*line) == (130, "", sentence)
    assert run(*line)[0] == 0
    resumed = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    assert run(*linear, *LONG)[0] == 0
    straight = strict_json(tmp_path / "lejax-spectrum" / "spectrum.json")
    assert resumed["exponents"] == straight["exponents"]


def test_ctrl_c_without_a_checkpoint_says_what_is_lost(run, linear, stop_in_third_chunk):
    sentence = "lejax: interrupted after 18000 of 30000 steps; they are lost, because the run has no checkpoint.\n"
    assert run(*linear, *LONG) == (130, "", sentence)


def test_ctrl_c_saves_what_was_not_yet_written(stop_in_third_chunk, tmp_path):
    henon = lejax.systems.Henon()
    path = tmp_path / "henon.npz"
    options = {"num_steps": 900, "chunk_steps": 300}
    checkpoint = lejax.run.Checkpoint(path, seconds=3600)
    with pytest.raises(
        KeyboardInterrupt, match=r"interrupted after \d+ of 900 steps; run the same"
    ):
        lejax.run.long_run(henon, jnp.zeros(2), checkpoint=checkpoint, **options)
    resumed = lejax.run.long_run(henon, jnp.zeros(2), checkpoint=checkpoint, **options)
    assert len(stop_in_third_chunk) == 5  # of four chunks the last two again
    straight = lejax.run.long_run(henon, jnp.zeros(2), **options)
    np.testing.assert_array_equal(resumed.exponents, straight.exponents)


def test_a_checkpoint_that_cannot_be_used_is_one_sentence(run, linear):
    for name, message in (
        ("run.json", "must be a path that ends in .npz"),
        ("a/run.npz", "the folder of checkpoint 'a/run.npz' does not exist"),
        ("linear.npz", "is not a lejax checkpoint"),
    ):
        status, out, err = run(*linear, "--steps", 40, "--checkpoint", name)
        assert (status, out) == (2, "")
        assert err.startswith(f"lejax spectrum: --checkpoint {name} cannot be used: ")
        assert message in err
        assert err.count("\n") == 1


def numbers_of(page):
    return {
        name: float(value)
        for name, value in re.findall(r'<data data-name="(\w+)" value="([^"]+)">', page)
    }


def code_of(page):
    blocks = re.findall(r'data-code="(\w+)"><code>(.*?)</code>', page, re.DOTALL)
    return {name: html.unescape(text) for name, text in blocks}


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "safetensors"])
def test_the_report_and_the_code_on_its_page(run, linear, tmp_path, suffix):
    inputs = np.load(tmp_path / "inputs.npy")
    if suffix == "npz":
        np.savez(tmp_path / "inputs.npz", inputs)
    elif suffix == "csv":
        np.savetxt(tmp_path / "inputs.csv", inputs, delimiter=",")
    elif suffix == "safetensors":
        safetensors.numpy.save_file({"x": inputs}, tmp_path / "inputs.safetensors")
    line = ("report", *linear[1:], "--inputs", f"inputs.{suffix}", "--transient", 60, "--seed", 3)
    status, out, err = run(*line)
    assert (status, err) == (0, "")
    assert "contracting" in out
    assert out.endswith("Wrote report.html.\n")
    page = (tmp_path / "report.html").read_text()
    assert "linear.npz, RNN(2, 3)" in page
    assert numbers_of(page)["first"] == pytest.approx(np.log(0.5), abs=1e-9)
    names = {}
    exec(code_of(page)["run"], names)
    assert float(names["spectrum"].exponents[0]) == numbers_of(page)["first"]


def test_the_report_driven_by_zeros(run, linear, tmp_path):
    line = ("report", *linear[1:], "--steps", 100, "--out", "zeros.html")
    assert run(*line)[0] == 0
    page = (tmp_path / "zeros.html").read_text()
    assert "driven by zeros" in page
    assert "At rest, stable" in page
    exec(code_of(page)["run"], {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--steps 3100", "ask for 80 + 3100 steps"),
        ("--out no/report.html", "the folder of out 'no/report.html' does not exist"),
        ("--out .", "is a folder; name a file"),
        ("--blocks 0", "--blocks: must be a whole number"),
    ],
)
def test_bad_input_to_the_report_is_one_sentence(run, line, message):
    status, out, err = run("report", *line.split())
    assert (status, out) == (2, "")
    assert err.startswith("lejax report: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_report_on_a_diverging_network_names_the_step(run, tmp_path):
    save_rnn(tmp_path / "explode.npz", 10 * np.eye(3))
    status, out, err = run("report", "explode.npz", "--activation", "relu", "--steps", 400)
    assert (status, out) == (2, "")
    assert err.startswith("lejax report: explode.npz diverges")
    assert "at step 310." in err
    assert err.count("\n") == 1


def test_a_failed_write_leaves_the_old_files_and_no_other(tmp_path):
    path = tmp_path / "spectrum.json"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    writers = {path: lambda file: file.write(b"new"), tmp_path / "spectrum.npz": fail}
    with pytest.raises(OSError, match="disk full"):
        output._write_all(writers)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("blocked", ["spectrum.json", "spectrum.npz", "spectrum.png"])
def test_all_files_or_none_where_one_name_is_taken(run, tmp_path, blocked):
    folder = tmp_path / "lejax-spectrum"
    (folder / blocked).mkdir(parents=True)
    others = {"spectrum.json", "spectrum.npz", "spectrum.png"} - {blocked}
    for name in others:
        (folder / name).write_text("old")
    status, out, err = run(*SMALL)
    assert (status, out) == (2, "")
    assert f"cannot write to --out lejax-spectrum: {blocked} is a directory" in err
    assert {path.name for path in folder.iterdir()} == others | {blocked}
    assert {(folder / name).read_text() for name in others} == {"old"}


def test_a_name_that_cannot_be_taken_gives_the_others_back(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    paths[0].write_text("old")
    paths[2].write_text("old")
    replace = os.replace

    def fail(source, target):
        if target == paths[2] and "new" in source.read_text():
            raise PermissionError("locked")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError, match="locked"):
        output._write_all({path: lambda file: file.write(b"new") for path in paths})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old", "c": "old"}


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    path = tmp_path / "spectrum.json"
    path.symlink_to("elsewhere")
    output._write_all({path: lambda file: file.write(b"new")})
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert path.read_text() == "new"


def test_a_file_name_is_no_formula(run, tmp_path):
    save_rnn(tmp_path / "m$x^$.npz", np.eye(3) / 2)
    status, _, err = run("spectrum", "m$x^$.npz", "--activation", "relu", "--steps", 40)
    assert (status, err) == (0, "")
    assert (tmp_path / "lejax-spectrum" / "spectrum.png").exists()


def test_a_figure_that_fails_leaves_no_other_file(run, monkeypatch, tmp_path):
    def fail(report):
        raise ValueError("no figure")

    monkeypatch.setattr(output, "_draw", fail)
    with pytest.raises(ValueError, match="no figure"):
        run(*SMALL)
    assert list((tmp_path / "lejax-spectrum").iterdir()) == []


def test_a_long_table_shows_both_ends():
    spectrum = lejax.LyapunovSpectrum(
        exponents=-jnp.arange(1.0, 201.0),
        standard_error=jnp.full(200, jnp.nan),
        error_grows=jnp.zeros(200, bool),
        block_exponents=jnp.zeros((1, 200)),
        block_steps=jnp.ones(1, jnp.int32),
        diagnostics=lejax.Diagnostics(
            unresolved=jnp.zeros(200, jnp.int32),
            rounding_error=jnp.zeros(200),
            avoidable_error=jnp.zeros(200),
            overlap_bias=jnp.zeros(200),
            num_orthonormalizations=jnp.asarray(1),
            longest_interval=jnp.asarray(1),
            first_bad_step=jnp.asarray(-1),
        ),
        state=jnp.zeros(200),
        frame=jnp.eye(200),
        num_steps=jnp.asarray(1),
        dt=jnp.asarray(1.0),
        result=lejax.RESULTS.successful,
    )
    for width in (20, 80, 200):
        lines = output._columns(tabulate(spectrum), width)
        assert max(map(len, lines)) <= max(width, 29)
        shown = [int(word) for line in lines for word in line.split() if word.isdigit()]
        assert sorted(shown) == [*range(1, 48), 105, *range(153, 201)]
        assert sum("... 105 more in the files" in line for line in lines) == 1


def test_a_name_always_stands_for_a_file(tmp_path, monkeypatch):
    path = tmp_path / "spectrum.json"
    path.write_bytes(b"old")
    seen, replace = [], os.replace

    def watched(source, target):
        seen.append(path.exists() and path.read_bytes())
        replace(source, target)

    monkeypatch.setattr(output.os, "replace", watched)
    output._write_all({path: lambda file: file.write(b"new")})
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
