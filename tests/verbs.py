"""Tables of verbs: each public function of each subpackage, as a function of one floating-point array.

- `VERBS`: functions that JAX can trace, at sizes of a few numbers.
- `LARGE`: the same functions at sizes and lengths for which the library takes other code paths.
- `HOST`: functions that run on the host and refuse a traced array in one sentence.
- `CONSTANT`: functions that take no arrays.

A suffix after the last dot of a name tells apart several calls of one function.
"""

import importlib
import inspect
from collections.abc import Callable
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from networks import Linear, driven_gru, random_tanh

import lejax
from lejax import indicators, orbits, plrnn, populations, reconstruction, training
from lejax.cells import GRUCell, LSTMCell
from lejax.systems import Flow, Henon, Logistic, Lorenz63, Lozi


PACKAGES = (
    "cells", "data", "indicators", "interop", "orbits", "plot", "plrnn", "populations", "reconstruction", "run",
    "systems", "training",
)  # fmt: skip


def public_functions() -> set[str]:
    """Names of all exported functions: `package.name`, or `name` for those of the top package."""
    names = {name for name in lejax.__all__ if inspect.isfunction(getattr(lejax, name))}
    for package in PACKAGES:
        module = importlib.import_module(f"lejax.{package}")
        for name, value in vars(module).items():
            is_public = inspect.isfunction(value) and name[0] != "_"
            if is_public and value.__module__.startswith(f"lejax.{package}"):
                names.add(f"{package}.{name}")
    return names | {"populations.Autoencoder"}  # its method `fit` is the verb


def function_of(name: str) -> str:
    """Name of the function that an entry of the table calls."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first in PACKAGES else first


def numbers(tree) -> jax.Array:
    """All numbers of a report as one real vector; a complex number gives its modulus."""
    leaves = [x for x in jax.tree.leaves(tree) if eqx.is_array(x) or isinstance(x, np.ndarray)]
    leaves = [x for x in leaves if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    leaves = [jnp.abs(x) if jnp.iscomplexobj(x) else x for x in leaves]
    return jnp.concatenate([jnp.ravel(x).astype(jnp.result_type(float)) for x in leaves])


CELL, STATE, INPUTS = driven_gru(size=4, num_steps=24)
START = STATE + 0.1
FRAME = jr.normal(jr.key(3), (4, 2))
EXPONENTS = jnp.array([0.5, 0.1, -0.8])
PLANE = jnp.array([0.3, -0.2])
LOZI = lejax.piecewise_linear(Lozi())
LOZI_SADDLE = jnp.array([0.454545, 0.227273])
SWITCHED = plrnn.ContinuousALRNN.from_weights(
    a=-0.2 * jnp.ones(2),
    W=jnp.array([[0.0, 2.0], [-2.0, 0.0]]),
    h=jnp.array([0.5, 0.1]),
    num_relu=2,
)
SERIES = jnp.cumsum(jr.normal(jr.key(5), (100, 1)), axis=0)
NETWORK = populations.Network(GRUCell(3, 4, key=jr.key(1)), 2, key=jr.key(2))
EXAMPLES = populations.Examples(
    jr.normal(jr.key(3), (2, 6, 3)), jnp.zeros((2, 6), jnp.int32), jnp.ones((2, 6)), 2
)
MODEL = reconstruction.ObservedCell(
    lejax.cells.ALRNN(3, 2, key=jr.key(0)), reconstruction.IdentityObservation(2, 3)
)
STACK = lejax.cells.Stack(
    [lejax.cells.RNNCell(3, 2, key=jr.key(5)), lejax.cells.GRUCell(2, 2, key=jr.key(6))]
)
SELECTIVE = lejax.cells.MambaCell(3, 2, 1, 2, key=jr.key(7))
DELTA = lejax.cells.DeltaProductCell(3, 2, 2, 2, use_gate=True, key=jr.key(8))
MODES = lejax.cells.LRUCell(3, 2, key=jr.key(9))
LOW_RANK = lejax.cells.LowRankRNNCell(0, 3, 1, dt=0.2, gain=2.0, key=jr.key(0))
NOISY, NOISE = lejax.cells.NoisyCell(CELL, 0.1), jr.split(jr.key(4), 24)


def once(make):
    """Cache the value of `make`, which is computed at the first call and outside of any trace."""

    @cache
    def made():
        with jax.ensure_compile_time_eval():
            return make()

    return made


@once
def spectrum() -> lejax.LyapunovSpectrum:
    return lejax.lyapunov_spectrum(CELL, STATE, INPUTS)


@once
def manifold() -> plrnn.PolylineManifold:
    return plrnn.unstable_manifold(LOZI, LOZI_SADDLE)


@once
def population() -> populations.Population:
    return populations.initialize_population(
        lambda key: lejax.cells.RNNCell(3, 4, key=key),
        populations.Hyperparameters(scale=jnp.ones(2)),
        2,
        key=jr.key(0),
    )


def with_blocks(x):
    return eqx.tree_at(lambda s: s.block_exponents, spectrum(), x)


def key_of(x):
    return jr.key(x.astype(jnp.uint32))


def run(**options) -> Callable:
    return lambda x: lejax.lyapunov_spectrum(CELL, x, INPUTS, **options).exponents


def spectrum_term(model, starts, num_steps=6, **options):
    term = reconstruction.SpectrumPenalty(
        lambda exponents: jnp.sum(exponents**2), num_starts=2, num_steps=num_steps, **options
    )
    return term(model, starts)


def scaled(tree, factor):
    return jax.tree.map(lambda x: factor * x if eqx.is_inexact_array(x) else x, tree)


def flossed(cell, state, inputs, factor, **options):
    cell, penalties = training.floss(
        scaled(cell, factor), state, inputs, optimizer=optax.sgd(1e-2), throw=False, **options
    )
    return numbers((eqx.filter(cell, eqx.is_inexact_array), penalties))


def diagram(parameters):
    return orbits.orbit_diagram(
        lambda r: Logistic(r), parameters, jnp.array(0.3), num_states=2, num_steps=8
    )


def reconstructed(model, series):
    return reconstruction.reconstruct(
        eqx.filter_vmap(lambda model, _: model, in_axes=(None, 0))(model, jnp.arange(2)),
        series,
        series,
        keys=jr.split(jr.key(0), 2),
        num_epochs=1,
        training=reconstruction.TrainingSettings(updates_per_epoch=1, batch_size=2, num_steps=10),
    )


# name -> (function of one array, that array)
VERBS: dict[str, tuple[Callable, jax.Array]] = {
    # --- the top package
    "lyapunov_spectrum": (run(), START),
    "lyapunov_spectrum.inputs": (
        lambda x: lejax.lyapunov_spectrum(CELL, STATE, x, num_exponents=2).exponents,
        INPUTS,
    ),
    "lyapunov_spectrum.every": (run(transient=3, method=lejax.SequentialQR(every=2)), START),
    "lyapunov_spectrum.cholesky": (
        run(method=lejax.SequentialQR(orthonormalizer=lejax.Cholesky())),
        START,
    ),
    "lyapunov_spectrum.householder": (
        run(method=lejax.SequentialQR(orthonormalizer=lejax.Householder())),
        START,
    ),
    "lyapunov_spectrum.parallel": (
        run(method=lejax.ParallelQR(num_chunks=2, overlap=4), transient=4),
        START,
    ),
    "lyapunov_spectrum.windowed": (run(adjoint=lejax.WindowedAdjoint(24)), START),
    "lyapunov_spectrum.direct": (run(adjoint=lejax.DirectAdjoint()), START),
    "lyapunov_spectrum.blocks": (
        lambda x: lejax.lyapunov_spectrum(STACK, (x[:2], x[2:]), INPUTS).exponents,
        START,
    ),
    "lyapunov_spectrum.selective": (
        lambda x: (
            lejax.lyapunov_spectrum(
                SELECTIVE, SELECTIVE.initial_state(), x, num_exponents=6
            ).exponents
        ),
        INPUTS,
    ),
    "lyapunov_spectrum.delta": (
        lambda x: (
            lejax.lyapunov_spectrum(DELTA, DELTA.initial_state(), x, num_exponents=4).exponents
        ),
        INPUTS,
    ),
    "lyapunov_spectrum.low_rank": (
        lambda x: lejax.lyapunov_spectrum(LOW_RANK, x, num_steps=12).exponents,
        jnp.array([0.1, -0.4, 0.3]),
    ),
    "lyapunov_spectrum.noisy": (
        lambda x: lejax.lyapunov_spectrum(NOISY, x, (INPUTS, NOISE)).exponents,
        START,
    ),
    "lyapunov_spectrum.echo": (
        lambda x: (
            lejax.lyapunov_spectrum(
                lejax.cells.EchoStateCell(3, 4, spectral_radius=x[0], key=jr.key(0)), STATE, INPUTS
            ).exponents
        ),
        jnp.array([0.9]),
    ),
    "unroll": (lambda x: lejax.unroll(CELL, x, INPUTS), START),
    "unroll.modes": (lambda x: lejax.unroll(MODES, MODES.initial_state(), x)[1], INPUTS[:4]),
    "unroll.map": (lambda x: lejax.unroll(Henon(), x, num_steps=4), jnp.array([0.1, 0.2])),
    "unroll.flow": (
        lambda x: lejax.unroll(Flow(Lorenz63(), dt=0.01, substeps=2), x, num_steps=2),
        jnp.ones(3),
    ),
    "jacobian": (lambda x: lejax.jacobian(CELL, x, INPUTS[0]), START),
    "push_forward": (lambda x: lejax.push_forward(CELL, STATE, INPUTS[0], x)[1], FRAME),
    "kaplan_yorke_dimension": (lejax.kaplan_yorke_dimension, EXPONENTS),
    "kolmogorov_sinai_entropy": (lejax.kolmogorov_sinai_entropy, EXPONENTS),
    "jackknife": (
        lambda x: lejax.jackknife(with_blocks(x), lambda exponents: jnp.sum(exponents**2))[1],
        spectrum().block_exponents,
    ),
    "combine": (
        lambda x: lejax.combine(spectrum(), with_blocks(x)).exponents,
        spectrum().block_exponents,
    ),
    "covariant_lyapunov_vectors": (
        lambda x: (
            lejax.covariant_lyapunov_vectors(
                CELL, x, INPUTS, num_exponents=2, backward_transient=5
            ).vectors
        ),
        START,
    ),
    "covariant_statistics": (
        lambda x: (
            lejax.covariant_statistics(
                CELL,
                x,
                INPUTS,
                num_exponents=2,
                backward_transient=5,
                reducer=lejax.VectorStatistics(),
            ).mean_squared_cosine
        ),
        START,
    ),
    "backward_lyapunov_vectors": (
        lambda x: (
            lejax.backward_lyapunov_vectors(CELL, x, INPUTS, num_exponents=2, transient=4).exponents
        ),
        START,
    ),
    "forward_lyapunov_vectors": (
        lambda x: (
            lejax.forward_lyapunov_vectors(
                CELL, x, INPUTS, num_exponents=2, backward_transient=4
            ).exponents
        ),
        START,
    ),
    "vector_angles": (lejax.vector_angles, FRAME),
    "principal_angles": (lambda x: lejax.principal_angles(x[:, :1], x[:, 1:]), FRAME),
    "participation_ratio": (lejax.participation_ratio, FRAME),
    "domination_violations": (lambda x: lejax.domination_violations(jnp.exp(x), 2), FRAME),
    "piecewise_linear": (
        lambda a: numbers(lejax.piecewise_linear(Lozi(a))),
        jnp.array(1.7),
    ),
    # --- cells, systems
    "cells.fit_readout": (
        lambda x: lejax.cells.fit_readout(x, INPUTS, penalty=0.1).weight,
        jr.normal(jr.key(7), (24, 4)),
    ),
    # --- populations
    "populations.bound_lost": (populations.bound_lost, EXPONENTS),
    "populations.resample_spectrum": (lambda x: populations.resample_spectrum(x, 5), EXPONENTS),
    "populations.Autoencoder": (
        lambda x: jax.vmap(
            populations.Autoencoder(latent_size=1, width=2, num_updates=2, alphas=(0.0, 1.0)).fit(
                x, INPUTS[:, 0], jnp.arange(24) % 3 == 0, key=jr.key(0)
            )
        )(x),
        jr.normal(jr.key(7), (24, 3)),
    ),
    "populations.fit_selector": (
        lambda x: jax.vmap(populations.fit_selector({"a": x[:, :1], "b": x[:, 1:]}, INPUTS[:, 0]))(
            {"a": x[:, :1], "b": x[:, 1:]}
        ),
        jr.normal(jr.key(7), (24, 4)),
    ),
    # --- indicators
    "indicators.log_alignment_index": (
        lambda x: indicators.log_alignment_index(Henon(), x, num_steps=6),
        jnp.array([0.1, 0.2]),
    ),
    "indicators.zero_one_test": (
        lambda x: indicators.zero_one_test(x, num_frequencies=5),
        jr.normal(jr.key(5), (100,)),
    ),
    "indicators.finite_time_exponent_field": (
        lambda x: indicators.finite_time_exponent_field(
            Henon(), x[None], num_steps=4, num_exponents=2
        ),
        jnp.array([0.1, 0.2]),
    ),
    "indicators.echo_state_index": (
        lambda x: (
            indicators.echo_state_index(CELL, jnp.stack([x, x + 1]), INPUTS, transient=4).exponents
        ),
        START,
    ),
    "indicators.transition_product": (
        lambda x: indicators.transition_product(CELL, x, INPUTS[:5]).log_determinant,
        START,
    ),
    "indicators.transition_product.eigenvalues": (
        lambda x: indicators.transition_product(Henon(), x, num_steps=4).log_moduli,
        jnp.array([0.1, 0.2]),
    ),
    "indicators.transient_growth": (
        lambda x: indicators.transient_growth(CELL, x, INPUTS[:5]).curve,
        START,
    ),
    "indicators.two_trajectory_exponent": (
        lambda x: indicators.two_trajectory_exponent(CELL, x, INPUTS, distance=1e-4).exponent,
        START,
    ),
    # --- measures
    "reconstruction.power_spectrum_distance": (
        lambda x: reconstruction.power_spectrum_distance(x, SERIES[:24] ** 2, smoothing=2.0),
        SERIES[:24],
    ),
    "reconstruction.prediction_error": (
        lambda x: reconstruction.prediction_error(MODEL, x, 2),
        INPUTS[:, :2],
    ),
    "reconstruction.state_space_divergence": (
        lambda x: reconstruction.state_space_divergence(x, INPUTS[:, :2], num_bins=3),
        INPUTS[:, 1:],
    ),
    "reconstruction.state_space_divergence.sampled": (
        lambda x: reconstruction.state_space_divergence(
            jnp.tile(x, 2), jnp.tile(x[::-1], 2), num_samples=4, key=jr.key(0)
        ),
        INPUTS,
    ),
    # --- orbits
    "orbits.find_fixed_points": (
        lambda u: orbits.find_fixed_points(CELL, START[None], u, size=1).points[0],
        INPUTS[0],
    ),
    "orbits.find_periodic_orbits": (
        lambda r: orbits.find_periodic_orbits(
            Logistic(r), jnp.array([0.5, 0.45, 0.8, 0.3]), period=2, size=4
        ).points[0],
        jnp.array(3.4),
    ),
    "orbits.floquet_multipliers": (
        lambda x: orbits.floquet_multipliers(Henon(), x, period=2).real,
        jnp.array([0.9, 0.2]),
    ),
    "orbits.orbit_diagram": (
        lambda x: (
            orbits.orbit_diagram(
                lambda r: Logistic(r), x, jnp.array(0.3), num_states=2, num_steps=8, transient=4
            ).exponents
        ),
        jnp.array([2.9, 3.1]),
    ),
    # --- piecewise-linear networks
    "plrnn.preimages": (lambda x: plrnn.preimages(LOZI, x).points, PLANE),
    "plrnn.inverse_step": (lambda x: plrnn.inverse_step(LOZI, x).point, PLANE),
    "plrnn.distance_to_manifold": (
        lambda x: plrnn.distance_to_manifold(x, manifold()),
        jnp.array([[0.3, -0.9], [2.0, 1.0]]),
    ),
    "plrnn.basin_index": (
        lambda x: 0.0 * numbers(plrnn.basin_index(LOZI, x, [jnp.zeros(2)], num_steps=3)),
        PLANE,
    ),
    "plrnn.bisect_basins": (
        lambda x: plrnn.bisect_basins(LOZI, x, x, [jnp.zeros(2)], num_steps=3).width,
        PLANE[None],
    ),
    "plrnn.refine_cycle": (
        lambda a: plrnn.refine_cycle(Lozi(a, 0.5), LOZI_SADDLE[None])[0],
        jnp.array(1.7),
    ),
    "plrnn.region_codes": (lambda x: 0.0 * numbers(plrnn.region_codes(LOZI, x)), PLANE[None]),
    "plrnn.sample_flow": (
        lambda x: plrnn.sample_flow(SWITCHED, x, jnp.array([0.4, 1.7])),
        PLANE,
    ),
    "plrnn.sample_flow.jacobian": (
        lambda x: lejax.jacobian(plrnn.EventExactFlow(SWITCHED, 2.0), x),
        PLANE,
    ),
    "plrnn.find_equilibria": (
        lambda x: (
            plrnn.find_equilibria(
                eqx.tree_at(lambda f: f.right_hand_side.h, SWITCHED, x), size=4
            ).points
        ),
        PLANE,
    ),
    # --- training
    "training.flossing_penalty": (
        lambda x: training.flossing_penalty(CELL, x, INPUTS, num_exponents=2),
        START,
    ),
    "training.batch_penalty": (
        lambda x: training.batch_penalty(
            CELL,
            jnp.stack([x, 2 * x, x - 0.1]),
            jnp.stack([INPUTS, -INPUTS, INPUTS]),
            function=training.BandPenalty(training.VolumeGrowth(1.5), 0.0, 0.0),
            num_sequences=2,
            key=jr.key(1),
            num_exponents=2,
        ),
        START,
    ),
    "training.spectrum_penalty": (
        lambda x: training.spectrum_penalty(
            CELL, x, INPUTS, function=jnp.square, num_exponents=2, adjoint=lejax.DirectAdjoint()
        ),
        START,
    ),
    "training.monitor": (
        lambda x: numbers(training.monitor(CELL, x, INPUTS, num_exponents=2, transient=2).exponents),
        START,
    ),
    "training.tune_parameter": (
        lambda x: training.tune_parameter(
            lambda scale: Linear(scale * jnp.diag(x)),
            jnp.ones(1),
            bracket=(0.1, 9.0),
            target=jnp.sum(x),
            num_steps=6,
        ).parameter,
        jnp.array([0.7]),
    ),
    "training.floss": (
        lambda x: flossed(CELL, STATE, INPUTS.reshape(4, 6, 3), x, num_exponents=2),
        jnp.array(1.1),
    ),
    "training.prune_weights": (
        lambda x: numbers(
            training.prune_weights(
                CELL, STATE, x, fraction=0.5, num_rounds=2, num_exponents=2
            ).cell
        ),
        INPUTS,
    ),
    "training.prune_units": (
        lambda x: numbers(
            training.prune_units(CELL, STATE, x, num_units=2, num_rounds=2, num_exponents=2).cell
        ),
        INPUTS,
    ),
    "training.take_units": (
        lambda x: numbers(training.take_units(scaled(CELL, x), jnp.array([2, 0]))),
        jnp.array(1.1),
    ),
    "reconstruction.forced_states": (
        lambda x: reconstruction.forced_states(MODEL, x, INPUTS[:5], jnp.full(5, 0.3)),
        jnp.array([0.3, -0.2, 0.5]),
    ),
    "populations.mean_loss": (
        lambda x: populations.mean_loss(
            NETWORK, eqx.tree_at(lambda e: e.inputs, EXAMPLES, x), dropout=0.3, key=jr.key(0)
        ),
        EXAMPLES.inputs,
    ),
    "populations.forecasting_task": (
        lambda x: numbers(populations.forecasting_task(x, num_steps=5)),
        INPUTS,
    ),
    "populations.row_task": (
        lambda x: numbers(populations.row_task(x, jnp.zeros(2, int), num_classes=2)),
        EXAMPLES.inputs,
    ),
    "populations.next_symbol_task": (
        lambda x: numbers(
            populations.next_symbol_task(x.astype(jnp.int32), num_symbols=3, num_steps=2)
        ),
        jnp.arange(8.0) % 3,
    ),
    **{
        f"populations.{name}": (
            lambda x, task=getattr(populations, name), options=options: numbers(
                task(key_of(x), 2, **options)
            ),
            jnp.array(3.0),
        )
        for name, options in {
            "adding_task": {"num_steps": 6},
            "copy_task": {"num_symbols": 3, "length": 2, "delay": 2},
            "delayed_xor_task": {"num_steps": 6, "delay": 2},
            "modular_counting_task": {"num_steps": 6, "modulus": 3},
            "parity_task": {"num_steps": 6},
        }.items()
    },
    "populations.initialize_population": (
        lambda x: numbers(
            populations.initialize_population(
                lambda key: lejax.cells.RNNCell(3, 4, key=key),
                populations.Hyperparameters(scale=x),
                2,
                key=jr.key(0),
            ).networks
        ),
        jnp.array([0.9, 1.1]),
    ),
    "populations.population_spectra": (
        lambda x: populations.population_spectra(population(), x, num_exponents=2).exponents,
        INPUTS,
    ),
}  # fmt: skip


# --- sizes and lengths for which the library takes other code paths

WIDE = random_tanh(
    jr.key(0), 40, 1.5
)  # 40 columns of 40 numbers: panels, and frames of 1600 numbers
WIDE_STATE = jr.normal(jr.key(1), (40,))
LSTM = LSTMCell(2, 128, key=jr.key(2))  # 4 columns of 256 numbers: frames of 1024
LSTM_INPUTS = jr.normal(jr.key(3), (12, 2))
LONG_INPUTS = jr.normal(jr.key(2), (160, 3))  # long enough for intervals of many steps


def wide(**options) -> Callable:
    return lambda x: lejax.lyapunov_spectrum(WIDE, x, num_steps=8, **options).exponents


def long(**options) -> Callable:
    return lambda x: lejax.lyapunov_spectrum(CELL, x, LONG_INPUTS, **options).exponents


WIDE_MODEL = reconstruction.ObservedCell(
    lejax.cells.ALRNN(40, 10, key=jr.key(0)), reconstruction.IdentityObservation(2, 40)
)
WIDE_STACK = lejax.cells.Stack(
    [lejax.cells.RNNCell(0, 36, key=jr.key(5)), lejax.cells.GRUCell(36, 36, key=jr.key(6))]
)

LARGE: dict[str, tuple[Callable, jax.Array]] = {
    "lyapunov_spectrum.columns": (wide(), WIDE_STATE),
    "lyapunov_spectrum.long": (long(), START),
    "lyapunov_spectrum.long_every": (long(method=lejax.SequentialQR(every=4)), START),
    "lyapunov_spectrum.long_and_wide": (
        lambda x: lejax.lyapunov_spectrum(WIDE, x, num_steps=130).exponents,
        WIDE_STATE,
    ),
    "lyapunov_spectrum.parallel_wide": (
        wide(method=lejax.ParallelQR(num_chunks=2, overlap=4), transient=4),
        WIDE_STATE,
    ),
    "lyapunov_spectrum.windowed_wide": (wide(adjoint=lejax.WindowedAdjoint(3)), WIDE_STATE),
    "lyapunov_spectrum.blocks_wide": (
        lambda x: lejax.lyapunov_spectrum(WIDE_STACK, (x[:36], x[36:]), num_steps=4).exponents,
        jr.normal(jr.key(1), (72,)),
    ),
    "lyapunov_spectrum.lstm": (
        lambda x: (
            lejax.lyapunov_spectrum(
                LSTM, (x[:128], x[128:]), LSTM_INPUTS, num_exponents=4
            ).exponents
        ),
        0.1 * jr.normal(jr.key(4), (256,)),
    ),
    "push_forward.wide": (
        lambda x: lejax.push_forward(WIDE, WIDE_STATE, None, x)[1],
        jr.normal(jr.key(3), (40, 36)),
    ),
    "covariant_lyapunov_vectors.wide": (
        lambda x: (
            lejax.covariant_lyapunov_vectors(
                WIDE, x, num_steps=4, num_exponents=36, transient=2, backward_transient=2
            ).vectors
        ),
        WIDE_STATE,
    ),
    "covariant_lyapunov_vectors.long": (
        lambda x: lejax.covariant_lyapunov_vectors(CELL, x, LONG_INPUTS, num_exponents=2).vectors,
        START,
    ),
    "backward_lyapunov_vectors.wide": (
        lambda x: (
            lejax.backward_lyapunov_vectors(
                WIDE, x, num_steps=4, num_exponents=36, transient=2
            ).exponents
        ),
        WIDE_STATE,
    ),
    "forward_lyapunov_vectors.wide": (
        lambda x: (
            lejax.forward_lyapunov_vectors(
                WIDE, x, num_steps=4, num_exponents=36, backward_transient=2
            ).exponents
        ),
        WIDE_STATE,
    ),
    "indicators.finite_time_exponent_field.wide": (
        lambda x: indicators.finite_time_exponent_field(
            WIDE, x[None], num_steps=4, num_exponents=36
        ),
        WIDE_STATE,
    ),
    "indicators.log_alignment_index.wide": (
        lambda x: indicators.log_alignment_index(WIDE, x, order=34, num_steps=4),
        WIDE_STATE,
    ),
    "indicators.transition_product.wide": (
        lambda x: indicators.transition_product(WIDE, x, num_steps=4).log_determinant,
        WIDE_STATE,
    ),
    "indicators.transient_growth.wide": (
        lambda x: indicators.transient_growth(WIDE, x, num_steps=4).curve,
        WIDE_STATE,
    ),
    "indicators.two_trajectory_exponent.long": (
        lambda x: indicators.two_trajectory_exponent(CELL, x, LONG_INPUTS, distance=1e-4).exponent,
        START,
    ),
    "orbits.orbit_diagram.wide": (
        lambda x: (
            orbits.orbit_diagram(
                lambda r: scaled(WIDE, r), x, WIDE_STATE, num_states=1, num_steps=4, transient=2
            ).exponents
        ),
        jnp.array([0.9, 1.1]),
    ),
    "training.flossing_penalty.wide": (
        lambda x: training.flossing_penalty(
            LSTM, (x[:128], x[128:]), LSTM_INPUTS, num_exponents=4
        ),
        0.1 * jr.normal(jr.key(4), (256,)),
    ),
    "training.flossing_penalty.long": (
        lambda x: training.flossing_penalty(CELL, x, LONG_INPUTS, num_exponents=2),
        START,
    ),
    "training.spectrum_penalty.term": (
        lambda x: spectrum_term(WIDE_MODEL, jnp.stack([x, 1 + x]), transient=2),
        WIDE_STATE,
    ),
    "training.batch_penalty.wide": (
        lambda x: training.batch_penalty(
            LSTM,
            (jnp.stack([x[:128], -x[:128], x[128:]]), jnp.zeros((3, 128))),
            jnp.stack([LSTM_INPUTS, -LSTM_INPUTS, 2 * LSTM_INPUTS]),
            function=training.BandPenalty(training.VolumeGrowth(2.5), 0.0, 0.0),
            num_sequences=2,
            key=jr.key(1),
            num_exponents=4,
        ),
        0.1 * jr.normal(jr.key(4), (256,)),
    ),
    "training.batch_penalty.long": (
        lambda x: training.batch_penalty(
            CELL,
            jnp.stack([x, 2 * x]),
            jnp.stack([LONG_INPUTS, -LONG_INPUTS]),
            function=training.BandPenalty(training.ExponentGap(0, 1), lower=0.5),
            num_exponents=2,
        ),
        START,
    ),
    "training.monitor.wide": (
        lambda x: numbers(training.monitor(WIDE, x, num_exponents=36, num_steps=8).exponents),
        WIDE_STATE,
    ),
    "training.tune_parameter.wide": (
        lambda x: training.tune_parameter(
            lambda scale: Linear(scale * jnp.diag(x)),
            jnp.ones(40),
            bracket=(0.1, 9.0),
            target=-0.5,
            num_steps=6,
            index=35,
        ).parameter,
        jnp.linspace(0.7, 1.0, 40),
    ),
    "training.prune_weights.wide": (
        lambda x: numbers(
            training.prune_weights(
                WIDE, x, num_steps=4, fraction=0.5, num_rounds=2, num_exponents=36
            ).cell
        ),
        WIDE_STATE,
    ),
    "training.prune_units.long": (
        lambda x: numbers(
            training.prune_units(
                CELL, STATE, x, num_units=2, num_rounds=2, num_exponents=2
            ).cell
        ),
        LONG_INPUTS,
    ),
    "training.floss.wide": (
        lambda x: flossed(
            LSTM, LSTM.initial_state(), LSTM_INPUTS.reshape(2, 6, 2), x, num_exponents=4
        ),
        jnp.array(1.1),
    ),
    # --- interop
    "interop.from_scan_step": (
        lambda w: lejax.lyapunov_spectrum(
            lejax.interop.from_scan_step(lambda w, h, u: (jnp.tanh(w @ h), u), w),
            jnp.ones(2),
            num_steps=8,
        ).exponents,
        jnp.array([[0.9, 0.4], [-0.3, 0.7]]),
    ),
}  # fmt: skip


# --- functions of the host, which refuse a traced array in one sentence

HOST: dict[str, tuple[Callable, jax.Array]] = {
    "report": (lambda x: lejax.report(CELL, x, INPUTS), START),
    "suggest_window": (
        lambda x: lejax.suggest_window(eqx.tree_at(lambda s: s.exponents, spectrum(), x)),
        spectrum().exponents,
    ),
    "interop.from_mamba": (
        lambda x: lejax.interop.from_mamba({"layers.0.mixer.A_log": x}),
        jnp.ones((4, 2)),
    ),
    "interop.from_reservoirpy": (
        lambda x: lejax.interop.from_reservoirpy({"W": x})[0].weight_hh,
        jnp.eye(4),
    ),
    "interop.from_torch": (
        lambda x: lejax.interop.from_torch(
            {
                "weight_ih_l0": x,
                "weight_hh_l0": x,
                "bias_ih_l0": x[0],
                "bias_hh_l0": x[0],
            }
        ),
        jnp.eye(4),
    ),
    "orbits.find_fixed_points": (
        lambda r: orbits.find_fixed_points(Logistic(r), jnp.array([0.6])),
        jnp.array(2.5),
    ),
    "orbits.find_periodic_orbits": (
        lambda r: orbits.find_periodic_orbits(Logistic(r), jnp.array([0.6]), period=2),
        jnp.array(3.4),
    ),
    "orbits.continue_orbit": (
        lambda r: orbits.continue_orbit(Logistic, r, jnp.array(0.6)),
        jnp.array(2.5),
    ),
    "orbits.continue_orbit.state": (
        lambda x: orbits.continue_orbit(Logistic, 2.5, x),
        jnp.array(0.6),
    ),
    "orbits.linear_stability": (orbits.linear_stability, 0.5 * jnp.eye(2)[None]),
    "orbits.linear_stability.dt": (
        lambda dt: orbits.linear_stability(np.eye(2)[None], dt=dt),
        jnp.array(0.5),
    ),
    "plot.plot_angles": (lejax.plot.plot_angles, jnp.array([0.1, 0.2])),
    "plot.plot_basins": (
        lambda x: lejax.plot.plot_basins(x.astype(int), jnp.array([[-1.0, 1.0], [-1.0, 1.0]])),
        jnp.zeros((2, 2)),
    ),
    "plot.plot_convergence": (
        lambda x: lejax.plot.plot_convergence(with_blocks(x)),
        spectrum().block_exponents,
    ),
    "plot.plot_finite_time_exponents": (lejax.plot.plot_finite_time_exponents, FRAME),
    "plot.plot_forecast": (lambda x: lejax.plot.plot_forecast(x, x), FRAME),
    "plot.plot_latent": (lambda x: lejax.plot.plot_latent(x, x[:, 0], label="loss"), FRAME),
    "plot.plot_manifolds": (
        lambda x: lejax.plot.plot_manifolds(unstable=scaled(manifold(), x)),
        jnp.array(1.0),
    ),
    "plot.plot_orbit_diagram": (
        lambda x: lejax.plot.plot_orbit_diagram(diagram(x)),
        jnp.array([2.9, 3.1]),
    ),
    "plot.plot_phase_diagram": (
        lambda x: lejax.plot.plot_phase_diagram(x, lejax.run.Grid(a=np.arange(2.0), b=np.arange(2.0))),
        jnp.eye(2),
    ),
    "plot.plot_phase_portrait_3d": (lejax.plot.plot_phase_portrait_3d, jnp.eye(3)),
    "plot.plot_phase_portrait": (lejax.plot.plot_phase_portrait, FRAME),
    "plot.plot_records": (
        lambda x: lejax.plot.plot_records([{"update": 0, "exponents": x}]),
        EXPONENTS,
    ),
    "training.append_record": (
        lambda x: training.append_record("training.jsonl", {"exponents": x}),
        EXPONENTS,
    ),
    "training.log_record": (
        lambda x: training.log_record(None, {"update": 0, "exponents": x}),
        EXPONENTS,
    ),
    "plot.plot_spectra": (lambda x: lejax.plot.plot_spectra(x, x[:, 0]), FRAME),
    "plot.plot_spectrum": (
        lambda x: lejax.plot.plot_spectrum(with_blocks(x)),
        spectrum().block_exponents,
    ),
    "plot.plot_training_spectra": (
        lambda x: lejax.plot.plot_training_spectra(x, x[:, 0]),
        FRAME,
    ),
    "plrnn.block_codes": (lambda x: plrnn.block_codes(x.astype(int), 2), jnp.arange(4.0)),
    "plrnn.block_entropies": (lambda x: plrnn.block_entropies(x.astype(int), 2), jnp.arange(4.0)),
    "plrnn.find_switches": (lambda x: plrnn.find_switches(x.astype(int)), jnp.arange(4.0)),
    "plrnn.symbol_transitions": (lambda x: plrnn.symbol_transitions(x.astype(int)), jnp.arange(4.0)),
    "plrnn.crossings": (
        lambda x: plrnn.crossings(scaled(manifold(), x), manifold()),
        jnp.array(1.0),
    ),
    "plrnn.manifold_quality": (
        lambda x: plrnn.manifold_quality(LOZI, manifold(), box=(x, 1 - x), num_points=4),
        -jnp.ones(2),
    ),
    "plrnn.find_cycles": (
        lambda a: plrnn.find_cycles(Lozi(a), 2, key=jr.key(0)),
        jnp.array(1.7),
    ),
    "plrnn.find_equilibria": (
        lambda x: plrnn.find_equilibria(eqx.tree_at(lambda f: f.right_hand_side.h, SWITCHED, x)),
        PLANE,
    ),
    "plrnn.find_regions": (lambda a: plrnn.find_regions(Lozi(a)), jnp.array(1.7)),
    "plrnn.stable_manifold": (lambda x: plrnn.stable_manifold(LOZI, x), LOZI_SADDLE),
    "plrnn.unstable_manifold": (lambda x: plrnn.unstable_manifold(LOZI, x), LOZI_SADDLE),
    "run.long_run": (
        lambda x: lejax.run.long_run(Henon(), x, num_steps=100, progress=False),
        PLANE,
    ),
    "run.sweep": (
        lambda x: lejax.run.sweep(lambda member: member, x, progress=False),
        jnp.arange(4.0),
    ),
    "run.to_xarray": (
        lambda x: lejax.run.to_xarray({"a": x}, jnp.arange(4.0)),
        jnp.arange(4.0),
    ),
    "populations.save_population": (
        lambda x: populations.save_population("population.npz", scaled(population(), x)),
        jnp.array(1.0),
    ),
    "populations.load_population": (
        lambda x: populations.load_population("population.npz", scaled(population(), x)),
        jnp.array(1.0),
    ),
    "populations.train_population": (
        lambda x: populations.train_population(
            scaled(population(), x), EXAMPLES, EXAMPLES, num_epochs=1, batch_size=2
        ),
        jnp.array(1.0),
    ),
    "reconstruction.reconstruct": (lambda x: reconstructed(MODEL, x), INPUTS[:, :2]),
}  # fmt: skip


# These functions take numbers of Python, files and modules, but no array that could be traced.
CONSTANT = {
    "cells.diagonal_legs", "cells.hippo_legs",
    "data.digits", "data.digits_gru", "data.digits_inputs", "data.eeg",
    "interop.from_dysts", "interop.from_flax", "interop.from_haiku", "interop.from_keras",
    "interop.from_keras_file", "interop.from_onnx",
    "systems.gallery",
    "training.read_records",
}  # fmt: skip
