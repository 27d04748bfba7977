"""lejax: the dynamics of recurrent models in JAX.

A cell is any callable `cell(input, state) -> state` on pytrees of real arrays: a cell of Equinox, a cell of
`lejax.cells`, a map or flow of `lejax.systems`, a PyTorch network read by `lejax.interop.from_torch`, a function.

Start with `lyapunov_spectrum`: it takes a cell, its initial state and its inputs, and `print` shows its result as a
table with error bars. `report` says on one page what a network does.

!!! example

    >>> import jax, lejax
    >>> cell = lejax.cells.GRUCell(3, 16, key=jax.random.key(0))
    >>> inputs = jax.random.normal(jax.random.key(1), (500, 3))
    >>> spectrum = lejax.lyapunov_spectrum(cell, cell.initial_state(), inputs, transient=50)
    >>> spectrum.exponents.shape, spectrum.standard_error.shape  # nats per step
    ((16,), (16,))

The names at the top compute exponents, vectors (`covariant_lyapunov_vectors`) and what follows from them
(`kaplan_yorke_dimension`, `jackknife`); strategies such as `SequentialQR` and `CheckpointedAdjoint` stand beside them.
The rest is in packages:

- `cells`, `systems`, `interop`, `data`: networks, textbook systems, networks from elsewhere, a trained network.
- `indicators`: chaos and transients seen by other means than exponents.
- `orbits`: fixed points, periodic orbits, their stability, branches and bifurcations.
- `plrnn`: exact tools for piecewise-linear networks.
- `training`, `reconstruction`, `populations`: training on exponents, on a series, and of many networks.
- `run`, `plot`: long runs and sweeps, pictures.

`help(lejax.lyapunov_spectrum)` shows a formula, the arguments and an example; so does every other name.
"""

# The public names stand in `__init__.pyi`, one a line. They are imported when first used, so that `lejax --help` does
# not wait for JAX.

import lazy_loader


__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
