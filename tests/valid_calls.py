"""One valid call of every public function and of every class that users construct; the fuzzer changes its arguments."""

import functools
import inspect
import pkgutil
import types
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import lejax
from lejax import (
    cells,
    orbits,
    plrnn,
    populations,
    reconstruction,
    systems,
    training,
)


FIXTURES = Path(__file__).parent / "fixtures"
MAMBA = {
    f"layers.0.{name}": np.ones(shape)
    for name, shape in {
        "norm.weight": (2,), "mixer.in_proj.weight": (8, 2), "mixer.conv1d.weight": (4, 1, 3),
        "mixer.conv1d.bias": (4,), "mixer.x_proj.weight": (5, 4), "mixer.dt_proj.weight": (4, 1),
        "mixer.dt_proj.bias": (4,), "mixer.A_log": (4, 2), "mixer.D": (4,), "mixer.out_proj.weight": (2, 4),
    }.items()
}  # fmt: skip
# Not called: reports (functions return them), strategies without settings, abstract classes, and what needs h5py.
NOT_CALLED = {
    "lejax": {
        "Adjoint", "BlockTriangularCell", "Cholesky", "CovariantReducer", "CovariantStatistics", "CovariantStep",
        "CovariantVectors", "DeclaredBlocks", "DenseBlock", "Diagnostics", "DiagonalBlock", "DirectAdjoint", "Factors",
        "ForgottenBlock", "FoundBlocks", "GramSchmidt", "Householder", "LyapunovSpectrum", "LyapunovVectors", "Method",
        "Orthonormalizer", "PiecewiseLinearCell", "PiecewiseLinearMap", "RESULTS", "RecurrentCell", "Report",
        "TangentCell", "TimedCell", "VectorField", "VectorStatistics",
    },
    "cells": {"Bilinear", "Discretization", "Euler", "ExponentialEuler", "LinearReadout", "ZeroOrderHold"},
    "data": set(),
    "indicators": {"EchoState", "LargestExponent", "TransientGrowth", "TransitionProduct"},
    "interop": {
        "DystsField", "DystsMap", "FlaxCell", "HaikuCell", "KerasCell", "LinenCell", "ScanStepCell",
        "from_flax", "from_haiku", "from_keras", "from_keras_file",  # their frameworks may be missing
    },
    "orbits": {"Bifurcation", "Branch", "FixedPoints", "OrbitDiagram", "PeriodicOrbits", "Stability"},
    "plot": set(),
    "plrnn": {
        "AffinePiecesManifold", "BlockEntropies", "BoundaryPoints", "Crossings", "Cycles", "Equilibria", "InverseStep",
        "ManifoldQuality", "PolylineManifold", "Preimages", "Switches", "SymbolTransitions",
    },
    "populations": {"Examples", "NetworkSelector", "Population", "SpectrumAutoencoder"},
    "reconstruction": {"Observation", "Reconstruction", "TeacherForcing"},
    "run": set(),
    "systems": {"Cat", "MeasuredSystem", "gallery"},
    "training": {"DynamicsSnapshot", "TunedParameter"},
}  # fmt: skip


def public() -> dict[str, Any]:
    """Every public function and class, and every public `from_weights`, by package and name."""
    found = {f"lejax.{name}": getattr(lejax, name) for name in lejax.__all__}
    for module in pkgutil.iter_modules(lejax.__path__):
        if module.name[0] != "_" and module.ispkg:
            package = getattr(lejax, module.name)
            for name, value in vars(package).items():
                if name[0] != "_" and callable(value) and value.__module__.startswith("lejax."):
                    found[f"{module.name}.{name}"] = value
    for name, value in list(found.items()):
        if inspect.isclass(value) and hasattr(value, "from_weights"):
            found[f"{name}.from_weights"] = value.from_weights
    return {name: value for name, value in found.items() if not inspect.ismodule(value)}


def from_weights_calls(calls) -> dict[str, tuple[tuple, dict[str, Any]]]:
    """A call of each `from_weights` with the fields of a module that the constructor drew."""
    found = {}
    for name, make in public().items():
        if name.endswith(".from_weights"):
            args, options = calls[name.removesuffix(".from_weights")]
            module = make.__self__(*args, **options)
            owner = getattr(module, "right_hand_side", module)  # of the weights of a vector field
            fields = inspect.signature(make).parameters
            found[name] = (), {field: getattr(owner, field) for field in fields}
    return found


@functools.cache
def valid_calls() -> dict[str, tuple[tuple, dict[str, Any]]]:
    """name -> positional and named arguments of a call that succeeds."""
    key = jr.key(0)
    cell = cells.GRUCell(3, 4, key=key)
    state, inputs = jnp.full(4, 0.1), jr.normal(jr.key(2), (24, 3))
    driven = (cell, state, inputs)
    henon, point = systems.Henon(), jnp.array([0.1, 0.2])
    lozi = lejax.piecewise_linear(systems.Lozi())
    box = (jnp.array([-2.0, -2.0]), jnp.array([2.0, 2.0]))
    switched = plrnn.ContinuousALRNN.from_weights(
        a=-0.2 * jnp.ones(2),
        W=jnp.array([[0.0, 2.0], [-2.0, 0.0]]),
        h=jnp.array([0.5, 0.1]),
        num_relu=2,
    )
    exponents, vectors = jnp.array([0.5, 0.1, -0.8]), jr.normal(jr.key(3), (5, 4, 2))
    series, rows = jr.normal(jr.key(5), (120, 2)), jr.normal(jr.key(6), (40, 6))
    column = np.asarray(rows[:, 0])
    codes = jnp.array([0, 1, 1, 0, 2, 1, 0, 0, 1, 2])
    spectrum = lejax.lyapunov_spectrum(cell, state, inputs)
    saddle = jnp.array([0.454545, 0.227273])
    unstable = plrnn.unstable_manifold(lozi, saddle, method=plrnn.Polyline(5.0))
    stable = plrnn.stable_manifold(lozi, saddle, method=plrnn.Polyline(5.0))
    diagram = orbits.orbit_diagram(
        systems.Logistic,
        jnp.array([2.9, 3.1]),
        jnp.array(0.3),
        num_states=2,
        num_steps=8,
        transient=4,
    )
    examples = populations.parity_task(jr.key(4), 8, num_steps=5)
    hyperparameters = populations.Hyperparameters(learning_rate=jnp.array([1e-3, 1e-2]))

    def make_cell(key):
        return cells.RNNCell(1, 3, key=key)

    adam = optax.scale_by_adam()
    population = populations.initialize_population(
        make_cell, hyperparameters, 2, optimizer=adam, key=key
    )
    network = populations.Network(make_cell(key), 2, key=key)

    def draw(key):
        return reconstruction.ObservedCell(
            cells.ALRNN(5, 2, key=key), reconstruction.IdentityObservation(2, 5)
        )

    model, keys = draw(key), jr.split(key, 2)
    run_options = {"num_exponents": 2, "num_steps": 20, "transient": 2}
    covariant = run_options | {"backward_transient": 2, "key": key}
    full = run_options | {"dt": 0.5, "frame": jnp.eye(4)[:, :2], "key": key}
    penalty = {
        "num_exponents": 2,
        "target": 0.0,
        "num_steps": 5,
        "transient": 2,
        "adjoint": lejax.DirectAdjoint(),
    }
    pruned = {name: value for name, value in penalty.items() if name != "target"}
    square = 0.1 * jnp.ones((3, 3))
    drawn = {"key": key, "dtype": jnp.float32}
    rates = {"use_bias": True, "activation": jnp.tanh, "dt": 0.1, "tau": 1.0, "gain": 1.0}
    calls = {
        "lejax.AngleHistogram": ((1, 10), {}),
        "lejax.CheckpointedAdjoint": ((4,), {}),
        "lejax.Panels": ((8,), {}),
        "lejax.ParallelQR": ((2, 3), {"every": 2, "orthonormalizer": lejax.Householder()}),
        "lejax.SequentialQR": ((2, lejax.Householder()), {"tolerance": 1e-6, "max_interval": 8}),
        "lejax.TangentDynamics": ((cell, state, inputs[0]), {"num_exponents": 2, "blocks": lejax.DeclaredBlocks()}),
        "lejax.WindowedAdjoint": ((5,), {}),
        "lejax.backward_lyapunov_vectors": (driven, run_options | {"dt": 0.5, "key": key}),
        "lejax.combine": ((spectrum, spectrum), {}),
        "lejax.covariant_lyapunov_vectors": (driven, covariant | {"qr_interval": 2, "dt": 0.5}),
        "lejax.covariant_statistics": (driven, covariant | {"reducer": lejax.VectorStatistics(), "qr_interval": 2}),
        "lejax.domination_violations": ((jnp.exp(rows[:, :3]), 2), {}),
        "lejax.forward_lyapunov_vectors": (driven, covariant | {"dt": 0.5}),
        "lejax.jackknife": ((spectrum, lejax.kolmogorov_sinai_entropy), {}),
        "lejax.jacobian": ((cell, state, inputs[0]), {}),
        "lejax.kaplan_yorke_dimension": ((exponents, 3, 0.01), {}),
        "lejax.kolmogorov_sinai_entropy": ((exponents,), {}),
        "lejax.lyapunov_spectrum": (
            driven,
            full | {"method": lejax.SequentialQR(), "adjoint": lejax.DirectAdjoint(), "num_blocks": 4, "throw": True},
        ),
        "lejax.participation_ratio": ((vectors,), {}),
        "lejax.piecewise_linear": ((systems.Lozi(), None), {}),
        "lejax.principal_angles": ((vectors, vectors), {}),
        "lejax.push_forward": ((cell, state, inputs[0], jnp.eye(4)), {}),
        "lejax.report": (driven, run_options | {"dt": 0.5, "key": key, "num_blocks": 4, "progress": False}),
        "lejax.suggest_window": ((spectrum, 1.5), {}),
        "lejax.unroll": (driven, {"num_steps": 5}),
        "lejax.vector_angles": ((vectors,), {}),
        "cells.ALRNN": ((3, 2, 5), drawn),
        "cells.ClippedShallowPLRNN": ((3, 5, 2), drawn),
        "cells.ClosedLoop": ((cell, eqx.nn.Linear(4, 3, key=key)), {}),
        "cells.DeltaProductCell": ((3, 2, 2), {"num_factors": 2, "beta_range": 1.0, "use_gate": True} | drawn),
        "cells.DendriticPLRNN": ((3, 4, 2), drawn),
        "cells.EchoStateCell": (
            (2, 3),
            {"leak": 0.5, "spectral_radius": 0.9, "density": 1.0, "input_scale": 1.0, "bias_scale": 0.1} | drawn,
        ),
        "cells.FeedThrough": ((cell, 3), {}),
        "cells.GRUCell": ((2, 3), {"use_bias": True, "reset_after": True} | drawn),
        "cells.GatedLinearAttentionCell": ((3, 2, 2), drawn),
        "cells.HippoCell": ((3, cells.Euler()), {"dt": 0.1, "dtype": jnp.float32}),
        "cells.LRUCell": ((3, 2), {"min_radius": 0.1, "max_radius": 0.9, "max_phase": 1.0} | drawn),
        "cells.LSTMCell": ((2, 3), {"use_bias": True} | drawn),
        "cells.LeakyRNNCell": ((2, 3), rates | drawn),
        "cells.LowRankRNNCell": ((2, 3, 1), rates | drawn),
        "cells.LowRankReLURNN": ((3, 5, 2), {"q": 0.5} | drawn),
        "cells.MLSTMCell": ((3, 2, 2, 2), {"exponential_forget": True} | drawn),
        "cells.MambaCell": ((3, 2), {"expansion": 2, "width": 3, "discretization": cells.ZeroOrderHold()} | drawn),
        "cells.Mamba2Cell": ((3, 2, 2), {"expansion": 2, "num_groups": 2, "width": 3} | drawn),
        "cells.MeanCenteredPLRNN": ((3, 2), drawn),
        "cells.NoisyCell": ((cell, 0.1), {}),
        "cells.PLRNN": ((3, 2), drawn),
        "cells.ProjectedLSTMCell": ((2, 3, 2), {"use_bias": True} | drawn),
        "cells.RNNCell": ((2, 3), {"use_bias": True, "activation": jnp.tanh} | drawn),
        "cells.RWKV7Cell": ((4, 2), {"rank": 3} | drawn),
        "cells.S4DCell": ((3, 2), {"discretization": cells.ZeroOrderHold()} | drawn),
        "cells.S6Cell": ((3, 2), {"discretization": cells.ZeroOrderHold(), "rank": 2} | drawn),
        "cells.SLSTMCell": ((3, 4), {"num_heads": 2, "exponential_forget": True} | drawn),
        "cells.ShallowPLRNN": ((3, 5, 2), drawn),
        "systems.SkewRNN": ((3,), {"gain": 1.0} | drawn),
        "cells.Stack": (([cell, cells.RNNCell(4, 2, key=key)],), {}),
        "cells.diagonal_legs": ((2,), {"dtype": jnp.float32}),
        "cells.fit_readout": ((rows, rows[:, :2]), {"penalty": 0.1}),
        "cells.hippo_legs": ((2,), {"dtype": jnp.float32}),
        "data.digits": ((), {"dtype": jnp.float32}),
        "data.digits_gru": ((), {"dtype": jnp.float32}),
        "data.digits_inputs": ((), {"dtype": jnp.float32}),
        "data.eeg": ((), {"dtype": jnp.float32}),
        "systems.Flow": ((systems.Lorenz63(), 0.01), {"substeps": 2}),
        "systems.Henon": ((1.4, 0.3), {}),
        "systems.Logistic": ((4.0,), {}),
        "systems.Lorenz63": ((10.0, 28.0, 2.7), {}),
        "systems.Lorenz96": ((8.0,), {}),
        "systems.Lozi": ((1.7, 0.5), {}),
        "systems.Rossler": ((0.2, 0.2, 5.7), {}),
        "systems.SkewTent": ((0.2, -2.0, 1.0), {}),
        "systems.Tent": ((2.0,), {}),
        "systems.VanDerPol": ((1.0,), {}),
        "populations.Autoencoder": (
            (),
            {
                "latent_size": 2, "width": 4, "depth": 1, "alphas": (0.0, 1.0), "num_updates": 5,
                "learning_rate": 1e-3,
            },
        ),
        "populations.bound_lost": ((exponents,), {}),
        "populations.resample_spectrum": ((exponents, 5), {}),
        "indicators.echo_state_index": (
            (cell, jnp.stack([state, state + 1]), inputs),
            {"transient": 4, "tolerance": 1e-3, "key": key},
        ),
        "indicators.finite_time_exponent_field": (
            (henon, jnp.stack([point, point]), None),
            {"num_steps": 4, "num_exponents": 1, "dt": 0.5, "batch_size": 2},
        ),
        "indicators.log_alignment_index": (driven, {"order": 2, "num_steps": 6, "key": key}),
        "indicators.transient_growth": (driven, {"num_steps": 5}),
        "indicators.transition_product": (driven, {"num_steps": 5}),
        "indicators.two_trajectory_exponent": (
            driven,
            {"num_steps": 20, "transient": 2, "distance": 1e-6, "dt": 0.5, "num_blocks": 4, "key": key},
        ),
        "indicators.zero_one_test": ((series[:, 0],), {"num_frequencies": 5, "key": key}),
        "interop.from_dysts": (("Lorenz",), {}),
        "interop.from_reservoirpy": (({"W": np.eye(4), "lr": 0.5},), {"dtype": "float64"}),
        "interop.from_scan_step": (
            (lambda w, carry, x: (jnp.tanh(w @ carry), x), jnp.eye(4)),
            {"initial_state": state},
        ),
        "interop.from_mamba": ((MAMBA,), {"prefix": "", "num_groups": 1, "dtype": "float64"}),
        "interop.from_onnx": ((FIXTURES / "gru.onnx",), {"prefix": "gru", "dtype": "float64"}),
        "interop.from_torch": (
            ({"weight_ih_l0": np.ones((4, 3)), "weight_hh_l0": np.eye(4)},),
            {"prefix": "", "activation": jax.nn.relu},
        ),
        "reconstruction.power_spectrum_distance": ((series, series[:100]), {"length": 50, "smoothing": 2.0}),
        "reconstruction.prediction_error": ((model, series, 3), {}),
        "reconstruction.state_space_divergence": (
            (series, series[:100]),
            {"num_bins": 5, "margin": 0.1, "pseudocount": 1e-5, "num_samples": 10, "variance": 1.0, "key": key},
        ),
        "orbits.NewtonSearch": ((5, 1e-6, 1e-3), {}),
        "orbits.PseudoArclength": ((3, 0.1), {}),
        "orbits.SpeedMinimization": ((20, 1e-6), {}),
        "orbits.continue_orbit": (
            (systems.Logistic, 2.5, jnp.array([0.6])[0]),
            {
                "period": 1, "num_segments": None, "step": 0.01, "bounds": (2.0, 3.5),
                "method": orbits.PseudoArclength(3, 0.1),
            },
        ),
        "orbits.find_fixed_points": (
            (cell, state[None], inputs[0]),
            {
                "size": 5, "search": orbits.NewtonSearch(5, 1e-6, 1e-3), "fallback": orbits.SpeedMinimization(),
                "outlier_distance_scale": 10.0,
            },
        ),
        "orbits.find_periodic_orbits": (
            (henon, point[None]),
            {"period": 2, "num_segments": None, "max_num_unique": 5, "search": orbits.NewtonSearch(5, 1e-6, 1e-3)},
        ),
        "orbits.floquet_multipliers": ((henon, point, None), {"period": 2}),
        "orbits.linear_stability": ((jnp.stack([square, 2 * square]),), {"dt": 0.5, "tolerance": 1e-6}),
        "orbits.orbit_diagram": (
            (systems.Logistic, jnp.array([2.9, 3.1]), jnp.array(0.3)),
            {"num_states": 2, "num_steps": 8, "transient": 4, "num_exponents": 1, "key": key},
        ),
        "plot.plot_angles": ((jnp.arctan(jnp.abs(column)),), {"num_bins": 5, "label": "angles"}),
        "plot.plot_basins": ((jnp.zeros((3, 4), int), box), {}),
        "plot.plot_convergence": ((spectrum,), {"num_exponents": 2}),
        "plot.plot_finite_time_exponents": (
            (rows,), {"block_steps": np.full(40, 5), "dt": 0.1, "num_exponents": 2},
        ),
        "plot.plot_forecast": (
            (series, series + 0.1),
            {"largest_exponent": 0.5, "dt": 0.1, "threshold": 0.3, "component": 1},
        ),
        "plot.plot_latent": ((rows[:, :2], column), {"label": "loss"}),
        "plot.plot_manifolds": ((stable, unstable), {}),
        "plot.plot_orbit_diagram": ((diagram,), {"component": 0, "num_exponents": 1, "name": "r"}),
        "plot.plot_phase_diagram": (
            (rows[:3, :4], lejax.run.Grid(a=np.arange(3.0), b=np.arange(4.0))), {"label": "exponent", "level": 0.1},
        ),
        "plot.plot_phase_portrait": ((series,), {"colors": series[:, 0], "label": "local", "length": 0.1}),
        "plot.plot_phase_portrait_3d": (
            (rows,), {"colors": rows[:, 0], "label": "local", "length": 0.1},
        ),
        "plot.plot_records": (
            ([
                {
                    "update": 0, "exponents": [-0.1], "standard_error": [0.1], "gradient_horizon": 20.0,
                    "num_near_zero": 0, "num_dead": 0,
                }
            ],),
            {"unit": "nats"},
        ),
        "plot.plot_spectra": ((rows, column), {"label": "loss", "unit": "nats"}),
        "plot.plot_spectrum": ((exponents,), {"standard_error": jnp.full(3, 0.1), "dt": 0.1}),
        "plot.plot_training_spectra": (
            (rows, column),
            {
                "epochs": np.arange(40), "loss_epochs": np.arange(40), "standard_error": jnp.abs(rows),
                "num_exponents": 2, "name": "update", "unit": "nats",
            },
        ),
        "plrnn.AffinePieces": ((20, 5, 10, 1e-8, 10.0), {"key": key}),
        "plrnn.ContinuousALRNN": ((3, 2, 2), {"tau": 2.0, "dtype": jnp.float32, "key": key}),
        "plrnn.EventExactFlow": ((switched, 0.5), {"max_pieces": 8}),
        "plrnn.PiecewiseLinearField": ((systems.Lozi(),), {}),
        "plrnn.Polyline": ((5.0, 100, 10), {}),
        "plrnn.basin_index": ((lozi, point[None], [jnp.zeros((1, 2))]), {"num_steps": 3, "tolerance": 1e-3}),
        "plrnn.bisect_basins": (
            (lozi, point[None], point[None] + 1, [jnp.zeros((1, 2))]),
            {"num_bisections": 3, "num_steps": 3, "tolerance": 1e-3},
        ),
        "plrnn.block_codes": ((codes, 2), {}),
        "plrnn.block_entropies": ((codes, 3), {}),
        "plrnn.crossings": ((stable, unstable), {}),
        "plrnn.distance_to_manifold": ((point[None], unstable), {"batch_size": 4}),
        "plrnn.find_cycles": ((lozi, 2), {"key": key, "num_starts": 5, "max_iters": 5, "max_words": 16}),
        "plrnn.find_equilibria": ((switched,), {"size": 4}),
        "plrnn.find_regions": ((lozi,), {"max_regions": 16}),
        "plrnn.find_switches": ((codes,), {}),
        "plrnn.inverse_step": ((lozi, point), {"max_flips": 1}),
        "plrnn.manifold_quality": ((lozi, unstable), {"box": box, "num_points": 5, "num_steps": 3, "key": key}),
        "plrnn.preimages": ((lozi, point), {"regions": jnp.ones((1, lozi.h2.size), bool)}),
        "plrnn.refine_cycle": ((lozi, point[None]), {}),
        "plrnn.region_codes": ((lozi, jnp.stack([point, point])), {}),
        "plrnn.sample_flow": ((switched, point, jnp.array([0.4, 1.7])), {"max_pieces": 8}),
        "plrnn.stable_manifold": ((lozi, saddle), {"method": plrnn.Polyline(3.0), "box": box}),
        "plrnn.symbol_transitions": ((codes,), {}),
        "plrnn.unstable_manifold": ((lozi, saddle), {"method": plrnn.Polyline(3.0), "box": box}),
        "run.Checkpoint": (("run.npz", 60.0), {}),
        "run.Grid": ((), {"a": np.linspace(0.0, 1.0, 3), "start": np.zeros((2, 2))}),
        "run.long_run": (driven, full | {"method": lejax.SequentialQR()}),
        "run.sweep": ((lambda member: jnp.zeros(()), np.linspace(0.0, 1.0, 4)), {"batch_size": 2, "progress": False}),
        "run.to_xarray": (({"x": np.zeros(3)}, np.linspace(0.0, 1.0, 3)), {}),
        "reconstruction.AdaptiveTeacherForcing": ((5, 0.99, 1.0), {}),
        "reconstruction.DivergenceScore": ((100, 10), {}),
        "training.BandPenalty": ((training.ExponentAt(0),), {"lower": -0.1, "upper": 0.1}),
        "training.ExponentAt": ((1,), {}),
        "training.ExponentGap": ((0, 1), {}),
        "training.FlossingSchedule": ((3, 10, 3, 100), {}),
        "training.VolumeGrowth": ((1.5,), {}),
        "reconstruction.GeneralizedTeacherForcing": ((0.5,), {}),
        "populations.Hyperparameters": ((), {"scale": jnp.ones(2), "learning_rate": 1e-3, "dropout": 0.1}),
        "reconstruction.IdentityObservation": ((2, 5), {"dtype": jnp.float32}),
        "reconstruction.LinearObservation": ((2, 5), {"dtype": jnp.float32, "key": key}),
        "populations.Network": ((make_cell(key), 2), {"key": key}),
        "reconstruction.ModelSelection": ((reconstruction.PredictionScore(2), 1), {}),
        "reconstruction.ObservedCell": ((model.cell, model.observation), {}),
        "reconstruction.PredictionScore": ((3,), {}),
        "reconstruction.SparseTeacherForcing": ((5,), {}),
        "reconstruction.SpectrumPenalty": (
            (jnp.sum, 1.0, 2),
            {"num_starts": 2, "num_steps": 5, "transient": 2, "dt": 1.0, "adjoint": lejax.DirectAdjoint()},
        ),
        "reconstruction.TrainingSettings": ((2, 2, 5, 0.1, optax.adam(1e-3), None), {}),
        "populations.adding_task": ((key, 4), {"num_steps": 5, "dtype": jnp.float32}),
        "populations.copy_task": ((key, 4), {"num_symbols": 3, "length": 2, "delay": 2, "dtype": jnp.float32}),
        "populations.delayed_xor_task": ((key, 4), {"num_steps": 5, "delay": 1, "dtype": jnp.float32}),
        "training.batch_penalty": (
            (cell, jnp.stack([state, state]), jnp.stack([inputs, inputs])),
            {
                "function": jnp.sum, "num_sequences": 1, "key": key, "num_exponents": 2, "num_steps": 5, "transient": 2,
                "adjoint": lejax.DirectAdjoint(),
            },
        ),
        "training.floss": (
            (cell, state, jnp.stack([inputs, inputs])),
            {"optimizer": optax.adam(1e-2), "num_updates": 2} | penalty | {"throw": True},
        ),
        "training.flossing_penalty": (driven, penalty),
        "training.prune_units": (
            (cell, state, inputs),
            {"num_units": 2, "num_rounds": 1} | pruned,
        ),
        "training.prune_weights": (
            (cell, state, inputs),
            {"fraction": 0.5, "where": lambda cell: cell.weight_hh, "num_rounds": 1} | pruned,
        ),
        "training.take_units": ((cell, jnp.array([0, 2])), {}),
        "training.UnitPruning": ((cell, jnp.arange(3)), {}),
        "training.WeightPruning": ((cell, None), {}),
        "reconstruction.forced_states": ((model, jnp.zeros(5), jnp.zeros((6, 5)), jnp.zeros(6)), {}),
        "populations.fit_selector": (
            ({"loss": jnp.eye(5)[:, :2], "spectrum": jnp.eye(5)[:, 2:]}, jnp.arange(5.0)),
            {"is_trained": jnp.ones(5, bool)},
        ),
        "populations.forecasting_task": ((series,), {"num_steps": 5, "horizon": 1}),
        "populations.initialize_population": (
            (make_cell, hyperparameters, 2),
            {"optimizer": adam, "key": key},
        ),
        "populations.load_population": (("/nonexistent/population.npz", population), {}),
        "populations.mean_loss": ((network, examples), {"dropout": 0.1, "key": key}),
        "populations.modular_counting_task": ((key, 4), {"num_steps": 5, "modulus": 3, "dtype": jnp.float32}),
        "populations.next_symbol_task": ((codes,), {"num_symbols": 3, "num_steps": 2, "dtype": jnp.float32}),
        "populations.parity_task": ((key, 4), {"num_steps": 5, "dtype": jnp.float32}),
        "populations.population_spectra": ((population, jnp.ones((20, 1))), {"num_exponents": 2, "transient": 2}),
        "reconstruction.reconstruct": (
            (eqx.filter_vmap(draw)(keys), series, series[:50]),
            {
                "keys": keys, "forcing": reconstruction.SparseTeacherForcing(4), "num_epochs": 1,
                "training": reconstruction.TrainingSettings(2, 2, 5, 0.1, optax.adam(1e-3)),
                "selection": reconstruction.ModelSelection(reconstruction.PredictionScore(2), 1),
            },
        ),
        "populations.row_task": ((jnp.zeros((3, 2, 2)), jnp.array([0, 1, 1])), {"num_classes": 2}),
        "populations.save_population": (("/nonexistent/population.npz", population), {}),
        "training.spectrum_penalty": (
            driven,
            {
                "function": jnp.sum, "num_exponents": 2, "num_steps": 5, "transient": 2,
                "adjoint": lejax.DirectAdjoint(),
            },
        ),
        "training.append_record": (("/nonexistent/training.jsonl", {"update": 1, "loss": 0.5}), {}),
        "training.log_record": ((types.SimpleNamespace(add_scalar=print), {"update": 1, "loss": 0.5}), {"prefix": "a"}),
        "training.monitor": (
            driven,
            {
                "num_exponents": 2, "band": 0.1, "num_steps": 5, "transient": 2, "dt": 1.0,
                "method": lejax.SequentialQR(every=1), "key": key,
            },
        ),
        "training.read_records": (("/nonexistent/training.jsonl",), {}),
        "training.tune_parameter": (
            (lambda gain: eqx.tree_at(lambda c: c.weight_hh, cell, gain * cell.weight_hh), state, inputs),
            {
                "bracket": (0.1, 4.0), "target": -0.2, "index": 0, "num_steps": 5, "transient": 2, "dt": 1.0,
                "method": lejax.SequentialQR(every=1), "adjoint": lejax.DirectAdjoint(), "key": key, "max_runs": 20,
                "throw": False,
            },
        ),
        "populations.train_population": (
            (population, examples, examples),
            {
                "num_epochs": 1, "batch_size": 4, "optimizer": adam, "spectrum_epochs": (1,),
                "stream": jnp.ones((20, 1)), "transient": 2,
            },
        ),
    }  # fmt: skip
    return calls | from_weights_calls(calls)
