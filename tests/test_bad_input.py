"""Bad input raises an error of one sentence, which names the argument, the value given and the value needed."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import Linear, driven_gru

import lejax
from lejax import SequentialQR, orbits, plrnn
from lejax.cells import (
    ClosedLoop,
    DeltaProductCell,
    EchoStateCell,
    GRUCell,
    HippoCell,
    LeakyRNNCell,
    LowRankRNNCell,
    LRUCell,
    LSTMCell,
    MambaCell,
    NoisyCell,
    RNNCell,
    S4DCell,
    S6Cell,
    Stack,
    fit_readout,
)
from lejax.systems import Flow, Henon, Logistic, Lorenz63, SkewRNN


CELL, STATE, INPUTS = driven_gru(size=4, num_steps=30)


def spectrum(cell=CELL, state=STATE, inputs=INPUTS, **keywords):
    return lejax.lyapunov_spectrum(cell, state, inputs, **keywords)


class Grows(eqx.Module):
    def __call__(self, input, state):
        return jnp.concatenate([state, state])


class Narrows(eqx.Module):
    def __call__(self, input, state):
        return state.astype(jnp.float32)


class Casts(eqx.Module):
    def __call__(self, input, state):
        return (0.5 * state).astype(jnp.bfloat16)


class Renames(eqx.Module):
    def __call__(self, input, state):
        return (state,)


CASES = {
    "k > d": (
        lambda: spectrum(num_exponents=5),
        ValueError,
        r"num_exponents is 5, but a state of 4 numbers has only 4",
    ),
    "k < 1": (lambda: spectrum(num_exponents=0), ValueError, r"num_exponents .* at least 1, got 0"),
    "fractional k": (
        lambda: spectrum(num_exponents=2.0),
        TypeError,
        r"num_exponents must be an integer, got 2\.0",
    ),
    "k against frame": (
        lambda: spectrum(num_exponents=2, frame=jnp.eye(4)),
        ValueError,
        r"num_exponents is 2, but the frame has 4 columns",
    ),
    "frame rows": (
        lambda: spectrum(frame=jnp.eye(3)),
        ValueError,
        r"frame has shape \(3, 3\), but a state of 4 numbers needs \(4, k\)",
    ),
    "frame wider than high": (
        lambda: spectrum(frame=jnp.ones((4, 5))),
        ValueError,
        r"frame has 5 columns, but a state of 4 numbers has only 4 directions",
    ),
    "complex frame": (
        lambda: spectrum(frame=1j * jnp.eye(4)),
        TypeError,
        r"frame must be real, got complex128",
    ),
    "no steps": (
        lambda: spectrum(Henon(), jnp.ones(2), None),
        ValueError,
        r"num_steps is required when inputs is None\. Inputs come after the state: \(cell, state, inputs\)\.",
    ),
    "a method as state": (
        lambda: spectrum(CELL, CELL.initial_state),
        TypeError,
        r"got the method initial_state: call it, initial_state\(\)\.",
    ),
    "zero steps": (lambda: spectrum(num_steps=0), ValueError, r"num_steps .* at least 1, got 0"),
    "negative transient": (
        lambda: spectrum(transient=-1),
        ValueError,
        r"transient .* at least 0, got -1",
    ),
    "fractional steps": (
        lambda: spectrum(num_steps=2.5),
        TypeError,
        r"num_steps must be an integer, got 2\.5",
    ),
    "boolean steps": (lambda: spectrum(num_steps=True), ValueError, r"num_steps .* got True"),
    "traced steps": (
        lambda: jax.jit(lambda n: spectrum(num_steps=n).exponents)(3),
        TypeError,
        r"num_steps must be a Python integer, not a traced array",
    ),
    "transient too long": (
        lambda: spectrum(transient=30),
        ValueError,
        r"transient \(30\) leaves nothing to count: inputs have 30 steps",
    ),
    "steps too many": (
        lambda: spectrum(transient=10, num_steps=25),
        ValueError,
        r"transient \+ num_steps = 35 exceeds the inputs, which have 30 steps",
    ),
    "unequal inputs": (
        lambda: spectrum(inputs={"a": INPUTS, "b": INPUTS[:7]}),
        ValueError,
        r"inputs\['a'\] has 30 steps, inputs\['b'\] has 7",
    ),
    "scalar inputs": (
        lambda: spectrum(inputs=3.0),
        ValueError,
        r"inputs is a scalar, but inputs must have time as first axis",
    ),
    "integer state": (
        lambda: spectrum(state=jnp.zeros(4, int)),
        TypeError,
        r"state has dtype int64, but a state must be real floating point",
    ),
    "complex state": (
        lambda: spectrum(Linear(jnp.eye(2)), {"z": jnp.zeros(2, complex)}, None, num_steps=3),
        TypeError,
        r"state\['z'\] has dtype complex128",
    ),
    "text state": (lambda: spectrum(state="zeros"), TypeError, r"state must be an array, got str"),
    "empty state": (lambda: spectrum(state=()), ValueError, r"state must hold at least one number"),
    "grows": (
        lambda: spectrum(Grows(), jnp.ones(2), None, num_steps=3),
        TypeError,
        r"Grows changed state from float64\[2\] to float64\[4\]",
    ),
    "narrows": (
        lambda: spectrum(Narrows(), jnp.ones(2), None, num_steps=3),
        TypeError,
        r"Narrows changed state from float64\[2\] to float32\[2\]",
    ),
    "renames": (
        lambda: spectrum(Renames(), jnp.ones(2), None, num_steps=3),
        TypeError,
        r"Renames changed the structure of its state",
    ),
    "no input for Equinox": (
        lambda: spectrum(eqx.nn.GRUCell(3, 4, key=jr.key(0)), STATE, None, num_steps=3),
        TypeError,
        r"GRUCell .*without an input.*ClosedLoop\(cell, readout\).*zero inputs",
    ),
    "no input for lejax": (
        lambda: spectrum(CELL, STATE, None, num_steps=3),
        TypeError,
        r"GRUCell .*ClosedLoop.*inputs of size 3, got None",
    ),
    "input of the wrong width": (
        lambda: spectrum(inputs=INPUTS[:, :2]),
        TypeError,
        r"GRUCell failed on one step with input float64\[2\] and state float64\[4\]",
    ),
    "lstm with one state": (
        lambda: spectrum(LSTMCell(3, 4, key=jr.key(0)), jnp.zeros(8)),
        TypeError,
        r"LSTMCell failed on one step with input float64\[3\] and state float64\[8\]",
    ),
    "vector field": (
        lambda: spectrum(Lorenz63(), jnp.ones(3), None, num_steps=3),
        TypeError,
        r"Lorenz63 is a vector field, not a cell: wrap it, lejax\.systems\.Flow\(Lorenz63",
    ),
    "zero dt": (lambda: spectrum(dt=0.0), ValueError, r"dt must be positive and finite, got 0\.0"),
    "nan dt": (lambda: Flow(Lorenz63(), dt=float("nan")), ValueError, r"dt must be positive"),
    "vector dt": (lambda: spectrum(dt=jnp.ones(2)), ValueError, r"dt must be one number"),
    "zero every": (
        lambda: SequentialQR(every=0),
        ValueError,
        r"every must be .* at least 1, got 0",
    ),
    "fractional every": (
        lambda: SequentialQR(every=1.5),
        TypeError,
        r"every must be an integer, got 1\.5",
    ),
    "zero every as an array": (
        lambda: SequentialQR(every=jnp.array(0)),
        ValueError,
        r"every must be .* at least 1, got 0",
    ),
    "zero blocks": (lambda: spectrum(num_blocks=0), ValueError, r"num_blocks .* at least 1, got 0"),
    "state size": (
        lambda: lejax.kaplan_yorke_dimension(jnp.zeros(3), 2),
        ValueError,
        r"there are 3 exponents, but state_size is 2",
    ),
    "combined k": (
        lambda: lejax.combine(spectrum(), spectrum(num_exponents=2)),
        ValueError,
        r"different numbers of exponents: 4 and 2",
    ),
    "combined dt": (
        lambda: lejax.combine(spectrum(), spectrum(dt=0.5)),
        ValueError,
        r"different dt: 1\.0 and 0\.5",
    ),
    "low precision function": (
        lambda: spectrum(lambda input, state: 0.5 * state, STATE.astype(jnp.bfloat16)),
        TypeError,
        r"plain function with a bfloat16\[4\] state",
    ),
    "batched exponents": (
        lambda: lejax.kaplan_yorke_dimension(jnp.ones((8, 3)), 3),
        ValueError,
        r"exponents must be those of one run, with shape \(k,\), got \(8, 3\); use jax.vmap",
    ),
    "scalar exponents": (
        lambda: lejax.kolmogorov_sinai_entropy(0.5),
        ValueError,
        r"exponents must be those of one run.* got \(\)",
    ),
    "batched spectrum": (
        lambda: lejax.jackknife(
            jax.vmap(lambda x: spectrum(state=x))(jnp.ones((2, 4))), lejax.kolmogorov_sinai_entropy
        ),
        ValueError,
        r"spectrum.exponents must be those of one run.* got \(2, 4\)",
    ),
    "too many steps": (
        lambda: spectrum(Henon(), jnp.ones(2), None, num_steps=2**31),
        ValueError,
        r"num_steps must be below 2\*\*31, got 2147483648",
    ),
    "text dt": (lambda: spectrum(dt="a"), TypeError, r"dt must be a number, got 'a'"),
    "text inputs": (lambda: spectrum(inputs="abc"), TypeError, r"inputs must be arrays"),
    "method": (
        lambda: spectrum(method=10),
        TypeError,
        r"method must be a SequentialQR or a ParallelQR, got 10",
    ),
    "tolerance": (
        lambda: lejax.SequentialQR(tolerance=float("nan")),
        ValueError,
        r"tolerance must be positive and finite, got nan",
    ),
    "bug in an autonomous map": (
        lambda: spectrum(lambda input, state: undefined * state, STATE, None, num_steps=3),
        TypeError,
        r"<lambda> failed on one step .* NameError: name 'undefined' is not defined",
    ),
    "cast inside a low precision cell": (
        lambda: spectrum(Casts(), jnp.ones(2, jnp.bfloat16), None, num_steps=3),
        TypeError,
        r"Casts turns its state into bfloat16, so its tangent cannot be computed in float32",
    ),
    "empty stack": (lambda: Stack([]), ValueError, r"at least one layer"),
    "mixed stack": (
        lambda: Stack([CELL, LeakyRNNCell(4, 4, dt=0.1, key=jr.key(0))]),
        ValueError,
        r"share their time step, but layer 0 has 1\.0 and layer 1 0\.1",
    ),
    "stack and state": (
        lambda: spectrum(Stack([CELL]), (STATE, STATE)),
        TypeError,
        r"the stack has 1 layers, the state 2",
    ),
    "readout that is not a function": (
        lambda: ClosedLoop(CELL, jnp.ones((3, 4))),
        TypeError,
        r"readout must be a function or an eqx\.Module that can be called, got ArrayImpl",
    ),
    "readout of the wrong output": (
        lambda: lejax.lyapunov_spectrum(
            ClosedLoop(CELL, eqx.nn.Linear(4, 2, key=jr.key(0))), STATE, num_steps=3
        ),
        TypeError,
        r"ClosedLoop failed: \w+ failed on float64\[2\], which the readout returned",
    ),
    "readout of the wrong input": (
        lambda: lejax.lyapunov_spectrum(
            ClosedLoop(CELL, eqx.nn.Linear(5, 3, key=jr.key(0))), STATE, num_steps=3
        ),
        TypeError,
        r"ClosedLoop failed: the readout failed on the output of \w+, float64\[4\]",
    ),
    "noise inside a loop": (
        lambda: lejax.lyapunov_spectrum(
            ClosedLoop(NoisyCell(CELL, 0.1), eqx.nn.Linear(4, 3, key=jr.key(0))), STATE, num_steps=3
        ),
        TypeError,
        r"got float64\[3\]; .* Close a loop inside: NoisyCell\(ClosedLoop",
    ),
    "readout of a pytree": (
        lambda: lejax.cells.fit_readout((STATE, STATE), STATE),
        TypeError,
        r"states must be one array \(T, H\), got tuple; .* jax\.vmap\(cell\.output\)\(states\)",
    ),
    "input to a closed loop": (
        lambda: spectrum(ClosedLoop(CELL, eqx.nn.Linear(4, 3, key=jr.key(0)))),
        TypeError,
        r"a ClosedLoop makes its own input",
    ),
    "hidden size": (
        lambda: RNNCell(2, 0, key=jr.key(0)),
        ValueError,
        r"hidden_size must be .* at least 1, got 0",
    ),
    "input size": (
        lambda: GRUCell(-1, 2, key=jr.key(0)),
        ValueError,
        r"input_size must be .* at least 0, got -1",
    ),
    "negative tau": (
        lambda: LeakyRNNCell(0, 2, dt=0.1, tau=-1.0, key=jr.key(0)),
        ValueError,
        r"tau must be positive and finite, got -1\.0",
    ),
    "discretization": (
        lambda: S6Cell(2, 2, "zoh", key=jr.key(0)),
        TypeError,
        r"discretization must be a Discretization such as ZeroOrderHold\(\), got 'zoh'",
    ),
    "class of a discretization": (
        lambda: HippoCell(2, lejax.cells.Euler, dt=0.1),
        TypeError,
        r"must be a Discretization such as ZeroOrderHold\(\), got <class",
    ),
    "beta range": (
        lambda: DeltaProductCell(2, 2, 2, beta_range=2.5, key=jr.key(0)),
        ValueError,
        r"beta_range must be above 0 and at most 2, got 2\.5",
    ),
    "ring without width": (
        lambda: LRUCell(2, 2, min_radius=0.9, max_radius=0.5, key=jr.key(0)),
        ValueError,
        r"0 <= min_radius < max_radius <= 1, got 0\.9 and 0\.5",
    ),
    "phase": (
        lambda: LRUCell(2, 2, max_phase=0.0, key=jr.key(0)),
        ValueError,
        r"max_phase must be positive and finite, got 0\.0",
    ),
    "convolution without a past": (
        lambda: MambaCell(2, 2, width=1, key=jr.key(0)),
        ValueError,
        r"width must be an integer of at least 2, got 1",
    ),
    "no modes": (
        lambda: S4DCell(2, 0, key=jr.key(0)),
        ValueError,
        r"num_modes must be .* at least 1, got 0",
    ),
    "no input for a state space": (
        lambda: S4DCell(2, 2, key=jr.key(0))(None, (jnp.zeros((2, 2, 2)), jnp.zeros(2))),
        TypeError,
        r"the cell takes inputs of size 2, got None",
    ),
    "input of another size": (
        lambda: MambaCell(2, 2, key=jr.key(0))(jnp.ones(3), None),
        ValueError,
        r"takes inputs of shape \(2,\), got \(3,\)",
    ),
    "leak": (
        lambda: EchoStateCell(1, 2, leak=1.5, key=jr.key(0)),
        ValueError,
        r"leak must be at most 1, got 1\.5",
    ),
    "density": (
        lambda: EchoStateCell(1, 2, density=0.0, key=jr.key(0)),
        ValueError,
        r"density must be positive and finite, got 0\.0",
    ),
    "no cycle": (
        lambda: EchoStateCell(1, 3, density=1e-6, key=jr.key(0)),
        ValueError,
        r"the 0 connections drawn between 3 units close no cycle, so W has a spectral radius of 0",
    ),
    "rank": (
        lambda: LowRankRNNCell(0, 2, 3, dt=0.1, key=jr.key(0)),
        ValueError,
        r"rank is 3, but hidden_size only 2",
    ),
    "skew size": (
        lambda: SkewRNN(0, key=jr.key(0)),
        ValueError,
        r"hidden_size must be .* at least 1, got 0",
    ),
    "negative noise": (
        lambda: NoisyCell(CELL, -1.0),
        ValueError,
        r"scale must not be negative and must be finite, got -1\.0",
    ),
    "noise without keys": (
        lambda: spectrum(NoisyCell(CELL, 1.0)),
        TypeError,
        r"a NoisyCell takes the pair \(input, key\) at each step, got .*; for a run pass \(inputs, jax",
    ),
    "lengths of states and targets": (
        lambda: fit_readout(jnp.ones((5, 2)), jnp.ones((4, 1))),
        ValueError,
        r"same T, got \(5, 2\) and \(4, 1\)",
    ),
    "no states": (
        lambda: fit_readout(jnp.ones((0, 2)), jnp.ones((0, 1))),
        ValueError,
        r"at least one state, got none",
    ),
    "integer states": (
        lambda: fit_readout(jnp.ones((5, 2), int), jnp.ones((5, 1))),
        TypeError,
        r"states must be real floating point, got int64",
    ),
    "no tolerance": (
        lambda: lejax.SequentialQR(tolerance=0.0),
        ValueError,
        r"tolerance must be positive and finite, got 0.0",
    ),
    "interval of no steps": (
        lambda: lejax.SequentialQR(max_interval=0),
        ValueError,
        r"max_interval must be an integer of at least 1, got 0",
    ),
    "diverges where its interval adapts": (
        lambda: spectrum(Henon(), 3 * jnp.ones(2), None, num_steps=256),
        RuntimeError,
        r"It happened at step \d+",
    ),
}


ROTATION = 3.0 * jnp.array([[0.6, -0.8], [0.8, 0.6]])
NOT_A_NUMBER = jnp.array([0.3, jnp.nan, -0.5])
SERIES = jr.normal(jr.key(1), (50, 2))


@jax.custom_vjp
def square(x):
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


def stretches(input, state):
    return ROTATION @ state


def fit_autoencoder(spectra, performance):
    method = lejax.populations.Autoencoder(latent_size=1, width=2, num_updates=1)
    return method.fit(spectra, performance, np.arange(len(spectra)) % 2 == 0, key=jr.key(0))


def flow(field, state, **options):
    return lejax.lyapunov_spectrum(Flow(field, **{"dt": 0.02} | options), state, num_steps=40)


# Wrong kinds of arguments, and errors inside cells, fields and functions of the user.
MORE_CASES = {
    "masked": (
        lambda: lejax.kolmogorov_sinai_entropy(np.ma.masked_array([1.0, 9.0], [False, True])),
        TypeError,
        r"exponents is a masked array: leave the masked values out",
    ),
    "masked performance": (
        lambda: fit_autoencoder(SERIES, np.ma.masked_less(SERIES[:, 0], 0)),
        TypeError,
        r"performance is a masked array",
    ),
    "masked weights": (
        lambda: lejax.unroll(Linear(np.ma.masked_array(np.eye(2))), jnp.ones(2), num_steps=2),
        TypeError,
        r"cell\.matrix is a masked array",
    ),
    "masked state": (
        lambda: lejax.unroll(Henon(), np.ma.masked_array([0.1, 0.2]), num_steps=2),
        TypeError,
        r"state is a masked array",
    ),
    "array of objects": (
        lambda: lejax.vector_angles(np.array([[None, 1.0]])),
        TypeError,
        r"vectors must be an array of real numbers, got object",
    ),
    "no array": (
        lambda: lejax.participation_ratio(None),
        TypeError,
        r"vectors must be an array of real numbers, got None",
    ),
    "ragged": (
        lambda: lejax.participation_ratio([[1.0], [1.0, 2.0]]),
        TypeError,
        r"vectors cannot be read as an array",
    ),
    "complex numbers": (
        lambda: lejax.kaplan_yorke_dimension(1j * jnp.ones(2)),
        TypeError,
        r"exponents must be real, got complex128",
    ),
    "complex series": (
        lambda: lejax.reconstruction.state_space_divergence(SERIES, SERIES + 1j),
        TypeError,
        r"generated must be real, got complex128",
    ),
    "complex performance": (
        lambda: fit_autoencoder(SERIES, SERIES[:, 0] + 1j),
        TypeError,
        r"performance must be real",
    ),
    "complex dt": (lambda: spectrum(dt=0.1j), TypeError, r"dt must be a number, got 0\.1j"),
    "complex distance": (
        lambda: lejax.indicators.two_trajectory_exponent(CELL, STATE, INPUTS, distance=1e-6j),
        TypeError,
        r"distance must be a number, got 1e-06j",
    ),
    "boolean for a number": (
        lambda: spectrum(dt=True),
        TypeError,
        r"dt must be a number, got True",
    ),
    "seed for a key": (
        lambda: spectrum(key=7),
        TypeError,
        r"key must be a key such as jax\.random\.key\(7\), got 7",
    ),
    "keys for a key": (
        lambda: lejax.populations.parity_task(jr.split(jr.key(0), 3), 20, num_steps=4),
        ValueError,
        r"key must be one key, got shape \(3,\); use jax\.vmap for a batch",
    ),
    "old keys for a key": (
        lambda: RNNCell(1, 2, key=jr.split(jr.PRNGKey(0), 3)),
        ValueError,
        r"key must be one key, got shape \(3, 2\)",
    ),
    "text for a flag": (
        lambda: spectrum(throw="no"),
        TypeError,
        r"throw must be True or False, got 'no'",
    ),
    "number for a flag": (
        lambda: GRUCell(1, 2, use_bias=0, key=jr.key(0)),
        TypeError,
        r"use_bias must be True or False, got 0",
    ),
    "no adjoint": (
        lambda: spectrum(adjoint=None),
        TypeError,
        r"adjoint must be an Adjoint such as DirectAdjoint\(\), got None",
    ),
    "dtype": (
        lambda: RNNCell(1, 2, dtype=int, key=jr.key(0)),
        TypeError,
        r"dtype must be a real floating-point dtype such as jnp\.float32, got <class 'int'>",
    ),
    "class of a cell": (
        lambda: lejax.unroll(Henon, jnp.ones(2), num_steps=2),
        TypeError,
        r"cell must be an instance, got the class Henon",
    ),
    "steps for inputs": (
        lambda: lejax.unroll(Henon(), jnp.zeros(2), 70),
        ValueError,
        r"for 70 steps without inputs write num_steps=70",
    ),
    "diverged exponents": (
        lambda: lejax.kaplan_yorke_dimension(NOT_A_NUMBER),
        ValueError,
        r"exponents hold 1 NaN out of 3",
    ),
    "diverged exponents of the entropy": (
        lambda: lejax.kolmogorov_sinai_entropy(NOT_A_NUMBER),
        ValueError,
        r"exponents hold 1 NaN out of 3",
    ),
    "negative tolerance": (
        lambda: lejax.kaplan_yorke_dimension(jnp.array([0.3, -0.5]), 2, -0.1),
        ValueError,
        r"tolerance must not be negative, got -0\.1",
    ),
    "diverged growth": (
        lambda: lejax.domination_violations(jnp.full((9, 2), jnp.nan), 2),
        ValueError,
        r"growth must hold factors of at least 0, but some are negative or NaN",
    ),
    "diverged spectra": (
        lambda: fit_autoencoder(SERIES.at[3, 1].set(jnp.nan), SERIES[:, 0]),
        ValueError,
        r"spectra holds 1 non-finite value out of 100",
    ),
    "alphas": (
        lambda: lejax.populations.Autoencoder(alphas=(0.1, float("nan"))),
        ValueError,
        r"alphas\[1\] must not be negative and must be finite, got nan",
    ),
    "learning rate": (
        lambda: lejax.populations.Autoencoder(learning_rate=-1e-3),
        ValueError,
        r"learning_rate must be positive and finite, got -0\.001",
    ),
    "latent size": (
        lambda: lejax.populations.Autoencoder(latent_size=-2),
        ValueError,
        r"latent_size must be an integer of at least 1, got -2",
    ),
    "more bins than memory": (
        lambda: lejax.reconstruction.state_space_divergence(SERIES, SERIES, num_bins=2**31 - 1),
        ValueError,
        r"num_bins is 2147483647, which makes 2147483647\^2 bins, but there is memory for",
    ),
    "more samples than memory": (
        lambda: lejax.reconstruction.state_space_divergence(
            jnp.ones((9, 6)), jnp.ones((9, 6)), num_samples=2**30, key=jr.key(0)
        ),
        ValueError,
        r"num_samples is 1073741824, which makes 1073741824 x 6 numbers",
    ),
    "field of a list": (
        lambda: flow(lambda input, x: [x[1], -x[0]], jnp.ones(2)),
        TypeError,
        r"Flow failed: the vector field <lambda> returns a slope of structure .* make an array of a list, jnp\.stack",
    ),
    "state of a list": (
        lambda: flow(lambda input, x: jnp.stack([x[1], -x[0]]), [0.1, 0.2]),
        TypeError,
        r"returns a slope of structure PyTreeDef\(\*\) for a state of structure PyTreeDef\(\[\*, \*\]\)",
    ),
    "slope of another size": (
        lambda: flow(lambda input, x: x[:2], jnp.ones(3)),
        TypeError,
        r"returns a slope of shape \(2,\) for state of shape \(3,\)",
    ),
    "field without an input": (
        lambda: flow(eqx.nn.MLP(2, 2, 4, 1, key=jr.key(0)), jnp.ones(2)),
        TypeError,
        r"vector field MLP cannot be called as field\(input, state\): too many positional arguments"
        r".*lambda input, state",
    ),
    "cell without an input": (
        lambda: lejax.unroll(eqx.nn.MLP(2, 2, 4, 1, key=jr.key(0)), jnp.ones(2), num_steps=3),
        TypeError,
        r"MLP cannot be called as cell\(input, state\): too many positional arguments",
    ),
    "reverse mode only": (
        lambda: lejax.jacobian(lambda input, x: square(x), jnp.ones(2)),
        TypeError,
        r"has a derivative in reverse mode only .*diffrax\.DirectAdjoint\(\).*jax\.custom_jvp",
    ),
    "stiff": (
        lambda: flow(lambda input, x: -5e4 * x, jnp.ones(2)),
        RuntimeError,
        r"step of Runge-Kutta may be too long for <lambda>: here dt=0\.02 and substeps=1; take a smaller dt or more",
    ),
    "linear and growing": (
        lambda: spectrum(stretches, jnp.ones(2), None, num_steps=900),
        RuntimeError,
        r"stretches is linear in its state, which grew beyond the floats.* start at zeros",
    ),
    "mixed precision": (
        lambda: spectrum(
            jax.tree.map(lambda x: x.astype(jnp.float32), CELL), STATE.astype(jnp.float32)
        ),
        TypeError,
        r"Precisions are mixed: weights float32, input float64, state float32\. "
        r"Cast the inputs by inputs\.astype\('float32'\)\.",
    ),
    "mixed precision of the weights": (
        lambda: spectrum(CELL, STATE.astype(jnp.float32), INPUTS.astype(jnp.float32)),
        TypeError,
        r"Cast the weights by jax\.tree\.map.*'float32'.*from_torch\(\.\.\., dtype='float32'\)\.",
    ),
    "state of another size": (
        lambda: lejax.TangentDynamics(CELL, STATE, INPUTS[0]).open(jnp.zeros(7), INPUTS[0]),
        ValueError,
        r"the state has 7 numbers, but the dynamics were made for 4",
    ),
    "state and an output": (
        lambda: lejax.unroll(lambda input, x: (x, 2 * x[:1]), jnp.ones(2), num_steps=3),
        TypeError,
        r"return its state as item 0 of 2, beside an output.*cell\(input, state\)\[0\]",
    ),
    "output before a state": (
        lambda: lejax.unroll(lambda input, x: (x[:1], x), jnp.ones(2), num_steps=3),
        TypeError,
        r"return its state as item 1 of 2",
    ),
    "one array for two arrays": (
        lambda: lejax.unroll(eqx.nn.LSTMCell(3, 4, key=jr.key(0)), STATE, INPUTS),
        TypeError,
        r"Its state must be like \(float64\[4\], float64\[4\]\), got float64\[4\]",
    ),
}
CASES |= MORE_CASES


def branching(input, state):
    return state if state[0] > 0 else -state


def henon(input, state):
    x, y = state
    return jnp.stack([1 - 1.4 * x**2 + y, 0.3 * x])


CASES |= {
    "branch on a number": (
        lambda: spectrum(branching, jnp.ones(2), None, num_steps=5),
        TypeError,
        r"branching failed on one step .* write jnp.where instead of if",
    ),
    "NumPy in a step": (
        lambda: lejax.unroll(lambda u, x: np.sin(x), jnp.ones(2), num_steps=5),
        TypeError,
        r"and functions of jax.numpy instead of NumPy's",
    ),
    "one guess without a guess axis": (
        lambda: orbits.find_fixed_points(henon, jnp.zeros(2)),
        TypeError,
        r"a list of states \(guesses\) has one more axis in front",
    ),
    "a series without channels": (
        lambda: lejax.unroll(GRUCell(1, 4, key=jr.key(0)), STATE, jnp.zeros(50)),
        TypeError,
        r"a series of one channel has two axes, inputs\[:, None\]",
    ),
    "a batch without a map": (
        lambda: spectrum(CELL, jnp.zeros((3, 4)), jnp.zeros((3, 30, 2))),
        TypeError,
        r"map over them with jax.vmap",
    ),
    "complex inputs": (
        lambda: spectrum(CELL, STATE, INPUTS + 1j),
        TypeError,
        r"The input is complex: give its real and imaginary parts as two channels",
    ),
    "a list for an array": (
        lambda: spectrum(lambda u, x: jnp.array(x) / 2, [0.1, 0.2], None, num_steps=5),
        TypeError,
        r"Make an array of a list",
    ),
    "half precision in parameters of double": (
        lambda: spectrum(Henon(), jnp.zeros(2, jnp.float16), None, num_steps=5),
        TypeError,
        r"Henon turns its state into float64, .* or start from a float64 state",
    ),
    "value of a traced member": (
        lambda: lejax.run.sweep(
            lambda m: Henon(float(m["a"]), 0.3)(None, jnp.ones(2)), lejax.run.Grid(a=np.ones(2))
        ),
        TypeError,
        r"needs the values of a member, but it is compiled once",
    ),
    "covariant vectors of a stiff flow": (
        lambda: lejax.covariant_lyapunov_vectors(
            Flow(lambda u, x: -1e3 * x**3, dt=1.0), jnp.ones(1), num_steps=50
        ),
        RuntimeError,
        r"here dt=1.0 and substeps=1; take a smaller dt or more substeps",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_raises_one_sentence(name):
    call, kind, sentence = CASES[name]
    with pytest.raises(kind, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value).split(" It said: ")[0]


def test_other_byte_orders_are_read():
    exponents, swapped = np.array([0.5, -1.5]), np.array([0.5, -1.5], ">f8")
    dimension = lejax.kaplan_yorke_dimension(swapped)
    assert dimension == lejax.kaplan_yorke_dimension(exponents)
    states = lejax.unroll(Linear(np.eye(2, dtype=">f8")), swapped, num_steps=2)
    np.testing.assert_array_equal(states[1], exponents)


def test_float16_is_cast_to_float32_where_linear_algebra_needs_it():
    vectors = jr.normal(jr.key(0), (6, 4)).astype(jnp.float16)
    angles = lejax.principal_angles(vectors[:, :2], vectors[:, 2:])
    exact = vectors.astype(jnp.float32)
    np.testing.assert_allclose(angles, lejax.principal_angles(exact[:, :2], exact[:, 2:]))


def test_checks_do_not_read_traced_values():
    dimension = jax.jit(lejax.kaplan_yorke_dimension)(NOT_A_NUMBER)
    assert jnp.isnan(dimension)
    batch = jax.vmap(lejax.kolmogorov_sinai_entropy)(jnp.stack([NOT_A_NUMBER, jnp.ones(3)]))
    np.testing.assert_array_equal(batch, [jnp.nan, 3.0])


def test_a_linear_map_at_the_zero_state_has_the_exponents_of_its_matrix():
    run = spectrum(stretches, jnp.zeros(2), None, num_steps=900)
    np.testing.assert_allclose(run.exponents, jnp.log(3.0), rtol=1e-12)


def _rise():
    """x' = 1 + max(x, 0), which has no fixed point."""
    return plrnn.ContinuousALRNN.from_weights(
        a=jnp.zeros(1), W=jnp.ones((1, 1)), h=jnp.ones(1), num_relu=1
    )


WARN = {
    "find_fixed_points": lambda: orbits.find_fixed_points(
        lambda _, x: x + 1.0, jnp.ones((1, 1)), search=orbits.NewtonSearch(max_iters=3)
    ),
    "find_fixed_points beyond max_num_unique": lambda: orbits.find_fixed_points(
        Logistic(2.5), jnp.array([0.59, 0.01]), max_num_unique=1
    ),
    "find_periodic_orbits": lambda: orbits.find_periodic_orbits(
        lambda _, x: x + 1.0, jnp.ones((1, 1)), period=2, search=orbits.NewtonSearch(max_iters=3)
    ),
    "continue_orbit": lambda: orbits.continue_orbit(
        Logistic,
        2.5,
        jnp.array(0.6),
        step=-0.1,
        bounds=(2.5, 3.0),
        method=orbits.PseudoArclength(num_steps=2),
    ),
    "find_cycles": lambda: plrnn.find_cycles(
        lejax.PiecewiseLinearMap([[1.0]], [[0.5]], [[1.0]], [1.0], [0.0]),
        2,
        key=jr.key(0),
        max_words=0,
    ),
    "find_equilibria": lambda: plrnn.find_equilibria(_rise()),
}


def test_non_finite_guesses_are_counted_in_a_warning():
    for find, options in (
        (orbits.find_fixed_points, {}),
        (orbits.find_periodic_orbits, {"period": 2}),
    ):
        with pytest.warns(
            UserWarning, match="guesses holds 4 non-finite values out of 4. Take guesses"
        ):
            find(henon, jnp.full((2, 2), jnp.nan), **options)


@pytest.mark.parametrize("name", WARN)
def test_a_warning_points_to_the_line_of_the_caller(name):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        WARN[name]()
    assert [w.filename for w in warned] == [__file__]
