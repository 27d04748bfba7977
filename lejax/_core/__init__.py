"""The foundation, without tangent vectors.

- `cell`: the protocols of cells, and their state as a flat vector.
- `check_annotations`: types of arguments against annotations; `check_types`: one type each; `check_values`: finite,
    positive and so on; `check_cell`: a cell with its state and inputs.
- `closures`: programs that call functions of the user.
- `batching`: `cond` and `while_loop` that stay scalar under `vmap`.
- `statistics`: means and standard errors of correlated blocks.
- `status`: how a run ended, and the error of a run that failed.
- `weights`: modules built from their arrays.
- `piecewise_linear`: the canonical form of piecewise-linear networks.
- `array_files`, `fingerprint`, `checkpoint`: files that are read safely and written completely or not at all.
- `units`: nats per step, or per unit time.
"""
