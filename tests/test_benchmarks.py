"""Every benchmark runs at toy size from the command line and writes standard JSON."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest


FOLDER = Path(__file__).parent.parent / "benchmarks"
PEERS = {
    "peers": ["lyapax", "chaotax"],
    "train_digits": ["sklearn"],
    "regularized_digits": ["sklearn"],
    "pruning": ["sklearn"],
    "robustness": ["sklearn"],
    "long_sequences": ["sklearn"],
    "population": ["sklearn"],
    "selection": ["sklearn"],
    "gallery": ["dysts"],
    "forecast_horizon": ["dysts"],
}


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
def test_benchmark_runs_at_toy_size(name, tmp_path):
    for module in PEERS.get(name, []):
        pytest.importorskip(module, reason=f"{module} is missing: pip install 'lejax[bench]'")
    report = tmp_path / "report.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--toy", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert isinstance(json.loads(report.read_text(), parse_constant=refuse), dict)


def test_nested_spans_of_compilation_are_counted_once(monkeypatch):
    import first_call  # pyright: ignore[reportMissingImports]

    tracing, lowering, compiling = first_call.SPANS
    spans = first_call.Spans()
    # Tracing lasts from 0 to 10 and contains a trace from 1 to 3 and a compilation from 4 to 9; lowering lasts from 10
    # to 11, and compilation from 11 to 15.
    for event, start, end in [
        (tracing, 1, 3),
        (compiling, 4, 9),
        (tracing, 0, 10),
        (lowering, 10, 11),
        (compiling, 11, 15),
        ("/jax/something/else", 0, 20),
    ]:
        clock = SimpleNamespace(perf_counter=lambda end=end: float(end))
        monkeypatch.setattr(first_call, "time", clock)
        spans.add(event, float(end - start))
    assert spans.seconds == {"tracing": 5.0, "lowering": 1.0, "compiling": 9.0}
    assert spans.programs == 2


@pytest.mark.parametrize(("calibrated", "status"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("option", ["", "--toy"])
def test_calibration_exits_with_1_if_errors_are_not_calibrated(calibrated, status, option):
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
sys.argv = ["calibration.py", *{option.split()!r}]
import calibration
calibration.calibrate = lambda name, run, num_seeds, lengths: {{
    "case": name,
    "long_run_exponents": [0.4],
    "runs": [
        {{"coverage": [0.5], "spread_over_error": [2.0], "mean_standard_error": [0.1]}} for _ in lengths
    ],
    "first_exponent_is_calibrated": {calibrated} or name != "Henon",
}}
calibration.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == (0 if option else status), done.stderr
    assert done.stderr == ""
    assert ("NOT in 90% to 99%" in done.stdout) == (not calibrated and not option)


def test_the_host_prints_all_digits_of_what_is_compared():
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
sys.argv = ["device.py", "--toy", "--host", "--seconds", "5"]
import device
device.host_rows = lambda toy, seconds: [{{"part": "f", "exponents": [1 / 3], "seconds": seconds}}]
device.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert json.loads(done.stdout) == {"part": "f", "exponents": [1 / 3], "seconds": 5.0}


def test_the_other_parts_run_after_one_part_fails_on_the_device(tmp_path):
    report = tmp_path / "report.json"
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
sys.argv = ["device.py", "--toy", "--json", {str(report)!r}]
import device

def breaks(*arguments):
    yield {{"first": 1.0}}
    raise IndexError("out of memory")

def lasts(*arguments):
    yield {{"system": "x", "dtype": "float32", "exponents": [0.3, -1.0], "standard_error": [0.1, 0.1]}}

def host(*arguments):
    row = {{"part": "f", "system": "x", "dtype": "float32"}}
    yield row | {{"exponents": [0.0, -1.0], "standard_error": [0.0, 0.1]}}
    yield {{"part": "a", "size": 3, "networks": 1, "dtype": "float32"}}

device.PARTS = {{"a": breaks, "f": lasts}}
device.on_the_host = host
device.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr == "Parts that failed: a.\n"
    content = json.loads(report.read_text())
    assert content["a"] == [{"first": 1.0}]
    assert content["failures"] == {"a": "IndexError: out of memory"}
    compared, host_only = content["host"]
    assert abs(compared["largest_in_joint_errors"] - 3) < 1e-12
    assert abs(compared["largest_difference"] - 0.3) < 1e-12
    assert compared["agrees"]
    assert host_only["size"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_missing_folder_is_refused_before_the_run(tmp_path):
    command = [sys.executable, str(FOLDER / "peers.py"), "--json", str(tmp_path / "no" / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2
    assert "its folder does not exist" in done.stderr
