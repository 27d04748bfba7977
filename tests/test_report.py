"""The report: numbers of the verbs, words of the right regime, code that runs, a page that loads nothing."""

import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
import types
from html.parser import HTMLParser

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import lejax
from lejax._report import doubts, words
from lejax._report.files import check_target, write_text
from lejax._report.numbers import MINUS, plain, plus_minus
from lejax._report.parts import count_states, is_growing
from lejax._report.regime import judge, num_unknown
from lejax._report.windows import windows


def imported_lstm():
    rng = np.random.default_rng(0)
    arrays = {
        "weight_ih_l0": rng.normal(size=(24, 3)) / 4,
        "weight_hh_l0": rng.normal(size=(24, 6)) / 4,
    }
    cell = lejax.interop.from_torch(arrays)
    return (cell, cell.initial_state(), jr.normal(jr.key(1), (800, 3))), {"transient": 50}


def lorenz():
    flow = lejax.systems.Flow(lejax.systems.Lorenz63(), dt=0.01)
    return (flow, jnp.ones(3)), {"num_steps": 20_000, "transient": 2_000}


def piecewise_linear():
    """An `ALRNN` of 5 units whose orbit is bounded and chaotic."""
    key = jr.key(147)
    cell = lejax.cells.ALRNN.from_weights(
        a=jr.uniform(jr.fold_in(key, 0), (5,), minval=-0.7, maxval=0.7),
        W=0.9 * jr.normal(jr.fold_in(key, 1), (5, 5)),
        h=0.5 * jr.normal(jr.fold_in(key, 2), (5,)),
        num_relu=3,
    )
    return (cell, jnp.zeros(5)), {"num_steps": 3_000, "transient": 500}


def shipped_gru():
    cell = lejax.data.digits_gru()
    return (cell, cell.initial_state(), lejax.data.digits_inputs()[:1200]), {"transient": 80}


CASES = {case.__name__: case for case in (imported_lstm, lorenz, piecewise_linear, shipped_gru)}
REGIMES = {
    "imported_lstm": "contracting",
    "lorenz": "chaotic",
    "piecewise_linear": "chaotic",
    "shipped_gru": "contracting",
}


@pytest.fixture(scope="module")
def made():
    """The report of each case and its page."""
    found = {}
    for name, case in CASES.items():
        args, options = case()
        report = lejax.report(*args, **options)
        found[name] = report, report.to_html()
    return found


def numbers_of(page):
    return {
        name: float(value)
        for name, value in re.findall(r'<data data-name="(\w+)" value="([^"]+)">', page)
    }


def code_of(page):
    blocks = re.findall(r'data-code="(\w+)"><code>(.*?)</code>', page, re.DOTALL)
    return {name: html.unescape(text) for name, text in blocks}


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


@pytest.mark.parametrize("case", CASES)
def test_the_numbers_are_those_of_the_verbs(made, case):
    report, page = made[case]
    args, options = CASES[case]()
    spectrum = lejax.run.long_run(*args, **options, num_blocks=64)
    np.testing.assert_array_equal(report.spectrum.exponents, spectrum.exponents)
    size = spectrum.frame.shape[0]
    tolerance = 2 * spectrum.standard_error
    dimension, error = lejax.jackknife(
        spectrum, lambda x: lejax.kaplan_yorke_dimension(x, size, tolerance)
    )
    np.testing.assert_allclose(
        [report.dimension, report.dimension_error], [dimension, error], rtol=1e-9
    )
    shown = numbers_of(page)
    assert shown["first"] == float(spectrum.exponents[0])
    assert shown["dimension"] == float(dimension)
    assert shown["participation"] == report.participation
    decimals = 5 if np.abs(spectrum.exponents).max() < 10 else 4
    for exponent in spectrum.exponents:
        assert f"{exponent:.{decimals}f}".replace("-", MINUS) in page
    assert report.regime == REGIMES[case]
    assert words.TITLES[report.regime] in page


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:max_num_unique")
@pytest.mark.filterwarnings("ignore:none of")
def test_each_piece_of_code_on_the_page_gives_the_number_on_it(made, case):
    report, page = made[case]
    args, _ = CASES[case]()
    given = dict(zip(("cell", "state", "inputs"), (*args, None), strict=False))
    blocks = code_of(page)
    run = blocks.pop("run")
    exec(run, given)
    found = {}
    for name, block in blocks.items():
        names = dict(given)
        exec(block, names)  # none needs another beside the first
        found[name] = names
    expected = {
        ("memory", "time_constants"): report.time_constants,
        ("memory", "gradient_horizon"): report.gradient_horizon,
        ("dimension", "dimension"): report.dimension,
        ("dimension", "dimension_error"): report.dimension_error,
        ("participation", "participation"): report.participation,
        ("windows", "rates"): report.spectrum.block_exponents[:, 0],
        ("points", "kinds"): report.fixed_points.stability.kind,
        ("points", "points"): report.fixed_points.points,
        ("trust", "worst"): report.spectrum.diagnostics.rounding_error.max(),
    }
    if hasattr(report.angles, "smallest"):
        expected["angles", "smallest"] = report.angles.smallest
        expected["angles", "sharing"] = report.angles.sharing
    for (block, name), value in expected.items():
        if name == "points":
            jax.tree.map(np.testing.assert_allclose, found[block][name].points, value)
        elif name == "kinds":
            assert found[block][name] == value
        else:
            np.testing.assert_allclose(found[block][name], value, rtol=1e-7)
    assert bool(jnp.any(found["lost"]["dead"])) == ("exactly to zero" in page)
    assert found["trust"]["status"] in page
    from matplotlib import pyplot

    pyplot.close("all")


class Structure(HTMLParser):
    """The tags of a page, checked to be closed in order."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_whole_and_loads_nothing(made, case):
    _, page = made[case]
    parser = Structure()
    parser.feed(page)
    assert parser.open == []
    tags = [tag for tag, _ in parser.found]
    assert not {"script", "iframe", "object", "embed", "form"} & set(tags)
    for tag, attributes in parser.found:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in page
    assert "url(" not in style
    assert re.search(r'<meta name="viewport" content="width=device-width', page)
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    ids = [attributes["id"] for _, attributes in parser.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:url\(#|href="#)([^")]+)', page):
        assert reference in ids
    pictures = [a for tag, a in parser.found if tag == "svg" and a.get("role") == "img"]
    assert len(pictures) >= 4
    assert all(len(picture["aria-label"]) > 40 for picture in pictures)
    assert tags.count("svg") == len(pictures) == tags.count("title") - 1
    assert tags.count("h1") == 1
    assert "#000000" not in page.partition("</style>")[2]
    assert len(page) < 1_500_000


def test_names_are_escaped():
    report = lejax.report(lejax.systems.Henon(), jnp.zeros(2), num_steps=400)
    named = eqx.tree_at(
        lambda r: (r.cell_name, r.inputs_name), report, ("<script>alert(1)</script>", "<img src=x>")
    )
    named = dataclasses.replace(named, is_driven=True, setup="# <iframe>")
    page = named.to_html()
    assert not {"<script", "<img", "<iframe"} & set(re.findall(r"<\w+", page))
    assert {"&lt;script&gt;", "&lt;img src=x&gt;", "&lt;iframe&gt;"} <= set(
        re.findall(r"&lt;[\w =]+&gt;", page)
    )


def test_the_file_is_replaced_in_one_step(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    options = {"num_steps": 400, "transient": 50}
    report = lejax.report(lejax.systems.Henon(), jnp.zeros(2), **options, out=target)
    assert target.read_text() == report.to_html()
    assert list(tmp_path.iterdir()) == [target]
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is a folder; name a file"):
        report.write(tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        lejax.report(lejax.systems.Henon(), jnp.zeros(2), **options, out=tmp_path / "no" / "x")


def test_what_is_no_file_is_not_replaced(tmp_path):
    """As root, a rename over /dev/null would succeed."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="no regular file"):
        check_target(pipe)
    link, target = tmp_path / "link.html", tmp_path / "page.html"
    link.symlink_to(target)
    write_text(check_target(link), "page")
    assert link.is_symlink()
    assert target.read_text() == "page"
    write_text(tmp_path / ("字" * 80), "page")  # 240 bytes


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="cannot be written to"):
        check_target(tmp_path / "page.html")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_page_that_is_interrupted_leaves_the_old_one(tmp_path, monkeypatch, error):
    target = tmp_path / "page.html"
    target.write_text("old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_no_figure_of_pyplot_is_opened_and_no_setting_changes():
    from matplotlib import pyplot, rcParams

    before = dict(rcParams)
    lejax.report(lejax.systems.Henon(), jnp.zeros(2), num_steps=400).to_html()
    assert pyplot.get_fignums() == []
    assert dict(rcParams) == before


def with_exponents(exponents, errors, *, grows=None, steps=10_000):
    """A spectrum that holds these numbers."""
    spectrum = lejax.lyapunov_spectrum(lejax.systems.Henon(), jnp.zeros(2), num_steps=100)
    exponents, errors = jnp.array(exponents), jnp.array(errors)
    k = exponents.size
    zeros = jnp.zeros(k)
    return eqx.tree_at(
        lambda s: (
            s.exponents,
            s.standard_error,
            s.error_grows,
            s.num_steps,
            s.diagnostics.unresolved,
            s.diagnostics.rounding_error,
        ),
        spectrum,
        (
            exponents,
            errors,
            zeros.astype(bool) if grows is None else jnp.array(grows),
            jnp.asarray(steps),
            zeros.astype(int),
            zeros,
        ),
    )


@pytest.mark.parametrize(
    ("exponents", "errors", "is_free_flow", "rests", "expected"),
    [
        ([0.4, -1.6], [0.01, 0.01], False, False, ("chaotic", 1, 0)),
        ([0.9, 0.001, -14.5], [0.02, 0.01, 0.02], True, False, ("chaotic", 1, 1)),
        ([-0.3, -0.4], [0.01, 0.01], False, False, ("contracting", 0, 0)),
        ([-0.3, -0.4], [0.01, 0.01], True, False, ("contracting", 0, 0)),
        ([0.001, -1.0, -2.0], [0.002, 0.01, 0.01], False, False, ("at the edge", 0, 1)),
        ([0.1, -1.0, -2.0], [0.1, 0.01, 0.01], False, False, ("cannot tell", 0, 1)),
        ([0.001, -1.0], [0.01, 0.01], True, False, ("periodic", 0, 1)),
        ([0.001, 0.0005, -1.0], [0.001, 0.001, 0.01], True, False, ("quasi-periodic", 0, 2)),
        ([0.1, 0.0, -1.0], [0.1, 0.1, 0.01], True, False, ("cannot tell", 0, 2)),
        ([0.001], [0.01], True, False, ("cannot tell", 0, 1)),
        ([0.3], [np.nan], False, False, ("cannot tell", 0, 0)),
        ([-np.inf, -np.inf], [np.nan, np.nan], False, False, ("contracting", 0, 0)),
        ([-0.7, -0.9], [0.0, 0.0], False, True, ("resting, stable", 0, 0)),
        ([0.5, -0.9], [0.0, 0.0], False, True, ("resting, unstable", 1, 0)),
        ([0.0, 0.0], [0.0, 0.0], False, False, ("at the edge", 0, 2)),
    ],
)
def test_regimes(exponents, errors, is_free_flow, rests, expected):
    spectrum = with_exponents(exponents, errors)
    found = judge(spectrum, is_free_flow=is_free_flow, rests=rests, grows=False)
    assert found == expected


def test_an_error_that_still_grows_needs_twice_the_distance():
    sure = with_exponents([0.03, -1.0], [0.01, 0.01])
    unsure = with_exponents([0.03, -1.0], [0.01, 0.01], grows=[True, False])
    options = {"is_free_flow": False, "rests": False, "grows": False}
    assert judge(sure, **options).name == "chaotic"
    assert judge(unsure, **options).name == "cannot tell"


def test_a_state_that_rests_is_not_called_chaotic():
    weight = 1.5 * jr.orthogonal(jr.key(0), 4)
    cell = lejax.cells.RNNCell.from_weights(weight_hh=weight, weight_ih=jnp.ones((4, 2)))
    report = lejax.report(cell, jnp.zeros(4), jnp.zeros((300, 2)))
    assert report.regime == "resting, unstable"
    assert np.isnan(report.participation)
    text = text_of(report.to_html())
    assert "The positive exponent is no sign of chaos" in text
    assert "rests on a fixed point. Start elsewhere" in text
    np.testing.assert_allclose(report.spectrum.exponents, np.log(1.5), atol=1e-9)


def test_a_state_that_grows_is_not_called_chaotic():
    report = lejax.report(lambda input, state: 1.5 * state, jnp.ones(2), num_steps=1000)
    assert (report.regime, report.num_positive) == ("growing", 2)
    assert report.participation == pytest.approx(1)  # squares of the states overflow
    text = text_of(report.to_html())
    assert "positive ones are no sign of chaos" in text
    assert "this is no attractor" in text
    assert "same in all 64 windows" in text
    assert "standard errors above zero" not in text  # the error is rounding
    assert "no error grows with longer blocks" in text


def test_growth_that_stops_is_no_escape():
    rising = jnp.concatenate([jnp.geomspace(1, 1e3, 100), jnp.full(100, 1e3)])
    assert not is_growing(rising, jnp.array(1e3))
    assert is_growing(rising[:100], jnp.array(1e3))
    assert not is_growing(rising[:100], jnp.array(1.0))  # it came back later
    assert not is_growing(rising[:39], jnp.array(1e3))


@pytest.mark.parametrize("num_steps", [1, 15])
def test_a_single_block_has_no_signs(num_steps):
    report = lejax.report(lejax.systems.Henon(), jnp.zeros(2), num_steps=num_steps)
    assert report.regime == "cannot tell"
    text = text_of(report.to_html())
    assert "Exponents: 2 of unknown sign." in text
    assert "0 positive, 0 zero, 2 unknown" in text
    assert "λ₁ has no error, so that its sign is open" in text
    assert "memory     unknown" in str(report)
    assert "1 block is too few" in text


def test_one_exponent_of_a_flow_asks_for_a_second():
    flow = lejax.systems.Flow(lejax.systems.VanDerPol(), dt=0.05)
    report = lejax.report(flow, jnp.ones(2), num_exponents=1, num_steps=2_000, transient=500)
    text = text_of(report.to_html())
    assert report.regime == "cannot tell"
    assert "ask for num_exponents=2" in text
    assert "would decide it" not in text
    assert "there are 1" not in text
    assert "but the run has 1 exponent." in text


def test_times_have_the_unit_of_the_step():
    """Of a step that lasts 1e-6: the exponent, its time constant, and the rates of the fixed points."""

    def cell(input, state):
        return jnp.tanh(jnp.array([0.5, 0.25]) * state + input)

    inputs = jr.normal(jr.key(0), (800, 2))
    one = lejax.report(cell, jnp.zeros(2), inputs, transient=10)
    report = lejax.report(cell, jnp.zeros(2), inputs, transient=10, dt=1e-6)
    rates = report.fixed_points.stability.rates
    np.testing.assert_allclose(rates, 1e6 * one.fixed_points.stability.rates, rtol=1e-9)
    np.testing.assert_allclose(report.fixed_points.q, 1e12 * one.fixed_points.q, rtol=1e-9)
    np.testing.assert_allclose(report.time_constants, 1e-6 * one.time_constants, rtol=1e-9)
    assert report.gradient_horizon == pytest.approx(one.gradient_horizon)
    error = float(report.spectrum.standard_error[0]) * report.time_constants[0] ** 2
    sentence = words.memory(report)[0]
    shown = plus_minus(report.time_constants[0], error)
    assert f"by a factor e in {shown} units of time along" in sentence
    assert "10⁻⁶" not in sentence
    settles = words.duration(float(-1 / rates[0, 0]), 1e-6)
    assert f"settles by a factor e in {settles}." in " ".join(words.points(report))


def test_the_kept_states_of_a_large_network_are_few():
    spectrum = with_exponents([0.4, -1.6], [0.01, 0.01], steps=10**6)
    assert count_states(spectrum) == 20_000
    large = eqx.tree_at(lambda s: s.frame, spectrum, jnp.zeros((10_000, 1)))
    assert count_states(large) == 2_000


def test_the_code_makes_the_key_of_the_run():
    key = jr.key(3, impl="rbg")
    report = lejax.report(lejax.systems.Henon(), jnp.zeros(2), num_steps=400, key=key)
    given = {"cell": lejax.systems.Henon(), "state": jnp.zeros(2), "inputs": None}
    exec(code_of(report.to_html())["run"], given)
    np.testing.assert_array_equal(given["spectrum"].exponents, report.spectrum.exponents)


def test_windows_are_named_by_their_inputs_or_times(made):
    driven = windows(made["imported_lstm"][0])
    assert driven[0].place.startswith("50 to ")  # the transient has inputs too
    assert driven[-1].place.endswith(" to 800")
    free = windows(made["lorenz"][0])
    assert (free[0].place[:7], free[-1].place[-5:]) == ("0.0 to ", "200.0")


def test_the_zero_of_a_chaotic_flow_does_not_shrink(made):
    assert made["lorenz"][0].angles.split == 2
    assert made["lorenz"][0].num_positive == 1


def test_every_exponent_from_the_first_unresolved_one_on_is_a_bound():
    spectrum = with_exponents([-0.1, -20.0, -30.0], [0.01, 0.1, 0.1])
    unresolved = jnp.array([0, 5, 0])
    spectrum = eqx.tree_at(lambda s: s.diagnostics.unresolved, spectrum, unresolved)
    (line,) = words.lost(types.SimpleNamespace(spectrum=spectrum))
    assert line.startswith("2 exponents of 3 are upper bounds")
    assert num_unknown(spectrum) == 0
    spectrum = eqx.tree_at(lambda s: s.exponents, spectrum, jnp.array([-0.1, 0.2, -30.0]))
    assert num_unknown(spectrum) == 1


def checks_of(rates, regime="chaotic", transient=100):
    """The checks of calm windows and of the transient, for a run with these exponents of its windows."""
    rates = jnp.array(rates)
    run = types.SimpleNamespace(block_exponents=rates[:, None], num_steps=1000, dt=1.0)
    options = {"transient": transient}
    report = types.SimpleNamespace(spectrum=run, regime=regime, options=options)
    return doubts._laminar(report), doubts._transient(report)


def test_calm_windows_and_a_short_transient_are_seen():
    like = [0.4, 0.5, 0.3, 0.45, 0.35, 0.4, 0.42, 0.38]
    calm, transient = checks_of(like)
    assert calm == []
    assert transient.verdict == "good"
    (calm,), _ = checks_of([*like, 0.02])
    assert "1 window of 9 hardly grows or shrinks" in calm.text
    assert checks_of([*like, 0.02], regime="contracting")[0] == []
    assert "transient is too short" in checks_of([1.4, *like])[1].text
    assert "There was no transient" in checks_of(like, transient=0)[1].text


def test_a_limit_cycle_is_periodic():
    flow = lejax.systems.Flow(lejax.systems.VanDerPol(), dt=0.05)
    report = lejax.report(flow, jnp.ones(2), num_steps=8_000, transient=1_000)
    assert report.regime == "periodic"
    assert float(report.dimension) == 1
    assert report.fixed_points.stability.kind == ["unstable spiral"]
    text = text_of(report.to_html())
    assert "stable limit cycle" in text
    assert "One zero is expected" in text


def test_dead_units_and_bounds_are_counted():
    weight = jnp.diag(jnp.array([0.5, 1e-20, 0.25])) + jnp.eye(3, k=1)
    bias = jnp.array([1.0, 1.0, -9.0])  # the last unit is never on
    cell = lejax.cells.RNNCell.from_weights(
        weight_hh=weight, weight_ih=jnp.zeros((3, 2)), bias=bias, activation=jax.nn.relu
    )
    inputs = jr.normal(jr.key(0), (200, 2))
    report = lejax.report(cell, jnp.ones(3), inputs)
    text = text_of(report.to_html())
    assert "exactly to zero" in text
    assert "lost" in text.lower()
    verdicts = {check.verdict for check in doubts.checks(report)}
    assert "care" in verdicts


def test_what_is_too_large_or_unresolved_is_left_out_with_its_reason():
    cell = lejax.cells.RNNCell(2, 130, key=jr.key(0))
    inputs = jr.normal(jr.key(1), (150, 2))
    report = lejax.report(cell, cell.initial_state(), inputs, num_exponents=3, num_blocks=8)
    text = text_of(report.to_html())
    assert "The state has 130 numbers; angles are computed up to 128" in text
    assert "The state has 130 numbers; points are searched up to 128" in text
    assert "32-bit" not in text


def test_whole_numbers_as_inputs_have_no_mean():
    def cell(input, state):
        return jnp.tanh(0.5 * state + input)

    report = lejax.report(cell, jnp.zeros(2), jr.randint(jr.key(0), (300,), 0, 2))
    assert "their mean is no input" in report.fixed_points.reason
    assert report.cell_name == "cell"


def test_float32_is_said():
    cell = lejax.cells.RNNCell(2, 4, dtype=jnp.float32, key=jr.key(0))
    inputs = jr.normal(jr.key(1), (300, 2), jnp.float32)
    report = lejax.report(cell, cell.initial_state(), inputs, transient=50)
    assert "The run was in float32" in text_of(report.to_html())


def test_states_of_one_number_and_pytrees():
    logistic = lejax.report(lejax.systems.Logistic(3.9), jnp.array(0.3), num_steps=1_000)
    assert "Angles need a direction on each side" in logistic.to_html()
    assert 'id="portrait' not in logistic.to_html()
    cell = lejax.cells.LSTMCell(2, 3, key=jr.key(0))
    inputs = jr.normal(jr.key(1), (300, 2))
    report = lejax.report(cell, cell.initial_state(), inputs, num_exponents=2, transient=20)
    assert "2 of 6 exponents" in text_of(report.to_html())


def test_a_run_that_diverges_is_an_error():
    with pytest.raises(RuntimeError, match="left the floating-point numbers"):
        lejax.report(lambda input, state: 10 * state, jnp.ones(2), num_steps=400)


def test_print_is_a_summary(made):
    lines = str(made["lorenz"][0]).splitlines()
    assert [line.split()[0] for line in lines] == ["Report", "regime", "memory", "dimension"]
    assert "chaotic" in lines[1]
    assert "units of time" in lines[2]


def test_numbers_as_text():
    assert plus_minus(-0.27362, 0.00495) == f"{MINUS}0.2736 ± 0.0050"
    assert plus_minus(2.0, 0.0) == "2"
    assert plus_minus(-np.inf, np.nan) == f"{MINUS}∞"
    assert plain(1.234e-9, 2) == "1.2 \N{MULTIPLICATION SIGN} 10⁻⁹"
    assert plain(12345.6) == "12,346"
    assert plain(0.0) == "0"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


def browse(folder, name, *flags):
    """Open a file of the folder in a browser of its own and return what it writes."""
    common = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
    ]
    common += [
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--virtual-time-budget=3000",
    ]
    return subprocess.run(
        [
            CHROMIUM,
            *common,
            f"--user-data-dir={folder / 'profile'}",
            *flags,
            f"file://{folder / name}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )


def look(folder, name, width):
    """A screenshot, what the page says to the console, and the requests that it makes; the browser makes its own."""
    picture, log = folder / "page.png", folder / "net.json"
    flags = (f"--window-size={width},3000", f"--screenshot={picture}", f"--log-net-log={log}")
    done = browse(folder, name, *flags)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    requests = {e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"}
    return picture.read_bytes(), "CONSOLE" in done.stderr, requests


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("case", CASES)
def test_in_a_browser(made, case, width, tmp_path):
    (tmp_path / "page.html").write_text(made[case][1])
    picture, has_errors, requests = look(tmp_path, "page.html", width)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000
    assert not has_errors
    assert requests == set()


@pytest.mark.slow
@in_a_browser
def test_the_page_fits_the_screen(made, tmp_path):
    """A frame measures the page, since a browser's window has a least width."""
    for case in CASES:
        (tmp_path / "page.html").write_text(made[case][1])
        for width in (360, 390, 800, 1200):
            (tmp_path / "frame.html").write_text(
                f"""<!doctype html>
<iframe id="f" src="page.html" width="{width}" height="900" style="border:0"></iframe>
<script>f.onload = () => {{ const d = f.contentDocument.documentElement;
document.body.append(JSON.stringify([d.scrollWidth, d.clientWidth, d.scrollHeight])); }}</script>"""
            )
            dump = browse(tmp_path, "frame.html", "--dump-dom").stdout
            inner, outer, height = json.loads(re.search(r"\[\d+,\d+,\d+\]", dump)[0])
            assert inner <= outer == width, (case, width)
            assert height > 1500


@pytest.mark.slow
@in_a_browser
def test_the_browser_would_see_a_request_and_an_error(tmp_path):
    (tmp_path / "bad.html").write_text(
        '<!doctype html><img src="http://127.0.0.1:9/x.png"><script>undefined.x</script>'
    )
    _, has_errors, requests = look(tmp_path, "bad.html", 390)
    assert has_errors
    assert requests == {"http://127.0.0.1:9/x.png"}
