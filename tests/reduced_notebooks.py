"""Notebooks at reduced size and in either precision, for `test_notebook_runs`: smaller numbers in place of theirs."""

import re


WHERE_X64 = 'jax.default_backend() != "tpu"'
SMALLER = {
    "01_first_spectrum.ipynb": {"num_steps=3000": "num_steps=500", "num_steps=1000": "num_steps=200"},
    "02_flossing.ipynb": {"150, TRANSIENT": "10, TRANSIENT", "3.0, 1000,": "3.0, 200,"},
    "03_spectra_and_performance.ipynb": {
        "number = 50": "number = 20", "num_epochs=25": "num_epochs=5", "(0, 3, 25)": "(0, 3, 5)",
        "n_resamples=1000": "n_resamples=50", "num_updates=80": "num_updates=10",
    },
    "04_geometry.ipynb": {
        "3, 64, 600": "3, 64, 200", "1, 1200)": "1, 400)", "(1000,": "(200,", "4, 400)": "4, 40)",
    },
    "05_reconstruct_lorenz.ipynb": {
        "num_epochs=5": "num_epochs=1", "num_steps=50_000": "num_steps=5000", "num_steps=30_000": "num_steps=3000",
        "num_steps=10_000": "num_steps=1000", "20_840": "2840", "20_000": "2000",
    },
    "06_manifolds.ipynb": {
        "3, 300)": "3, 60)", "(1500, 2)": "(200, 2)", "[:400]": "[:50]", "num_steps=200_000": "num_steps=5000",
        "max_length=300.0": "max_length=50.0", "3, 200)": "3, 40)", "(200, 200)": "(40, 40)",
    },
    "07_state_space.ipynb": {"4000": "1000", "2.4, 6)": "2.4, 3)", "3.0, 6)": "3.0, 3)"},
    "08_gallery.ipynb": {"20_000": "2000", "0.35, 60)": "0.35, 6)", "6000": "600"},
    "09_long_runs_and_sweeps.ipynb": {"2.0, 13), 12": "2.0, 13), 2"},
    "10_regularize_an_lstm.ipynb": {"rounds=20": "rounds=2", "(0, 1, 2)": "(0,)"},
    "11_ten_thousand_networks.ipynb": {
        "= 24, 20": "= 24, 2", "4.0, 25)": "4.0, 5)", "batch_size=1000": "batch_size=40",
        "num_steps=400": "num_steps=50", "transient=400": "transient=50",
    },
}  # fmt: skip


def reduce(notebook, name: str, precision: str) -> None:
    """Replace the numbers in the code of a notebook; each of them must be there."""
    smaller = SMALLER[name] | ({WHERE_X64: "False"} if precision == "float32" else {})
    unused = set(smaller)

    def replace(match):
        unused.discard(match[0])
        return smaller[match[0]]

    pattern = re.compile("|".join(map(re.escape, smaller)))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = pattern.sub(replace, cell.source)
    assert not unused, f"{name} no longer has {unused}"
