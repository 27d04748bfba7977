"""The tables of docs/performance.md. The name of a function is that of its table."""

from . import gpu
from .common import (
    digits,
    markdown,
    mebibytes,
    microseconds,
    power,
    quartiles,
    read,
    source,
)
from .slower import slower


def speed() -> str:
    rows = []
    for row in read("speed")["rows"]:
        if row["problem"].startswith(("short", "Householder")):
            continue
        seconds, name = row["seconds_per_step"], f"{row['problem']}, {row['steps']} steps"
        floor = digits(row["time_over_floor"]) if "time_over_floor" in row else "-"
        cells = [quartiles(row["peer_over_lejax"]), microseconds(seconds["lejax"])]
        cells += [digits(row["mean_interval"]), power(row["error"]), floor]
        rows.append([name, row["peer"], *cells])
        if "peer_over_lejax_both_every_10" in row:
            cells = [quartiles(row["peer_over_lejax_both_every_10"])]
            cells += [microseconds(seconds["lejax every=10"]), "10", "-", "-"]
            rows.append([f"{row['problem']}, both every 10 steps", row["peer"], *cells])
    header = ["problem", "peer", "time of the peer / lejax", "lejax, µs a step"]
    header += ["mean interval", "error", "lejax / floor"]
    return markdown(header, rows, 2) + "\n\n" + source("speed", engine=True)


def speed_short() -> str:
    rows = []
    for row in read("speed")["rows"]:
        kind, _, problem = row["problem"].partition(": ")
        if kind in ("short", "Householder"):
            ratio = row["peer_over_lejax"]
            milliseconds = [
                digits(1e3 * row["seconds_per_step"][who] * row["steps"])
                for who in ("lejax", "peer")
            ]
            steps = "" if "T=" in problem else f", T={row['steps']}"
            note = ", with `Householder()`" if kind == "Householder" else ""
            rows.append([problem + steps + note, quartiles(ratio), *milliseconds])
    header = ["problem", "time of lyapax / lejax", "lejax, ms a call", "lyapax, ms a call"]
    return markdown(header, rows) + "\n\n" + source("speed", engine=True)


def peers() -> str:
    names = ["lyapax jit", "lyapax doc", "chaotax jit", "chaotax doc", "scan jit"]
    data = read("peers")["rows"]
    rows = []
    for name in [*names, "NumPy", "PyTorch"]:
        found = [row["contenders"].get(name) for row in data]
        rows.append([name, *(digits(f["over_lejax"]["median"]) if f else "-" for f in found)])
    seconds = [row["contenders"]["lejax"]["seconds_per_step"] for row in data]
    rows.append(["lejax, µs a step", *map(microseconds, seconds)])
    header = ["contender", *(row["problem"] for row in data)]
    return markdown(header, rows) + "\n\n" + source("peers", engine=True)


def first_call() -> str:
    names = {"lejax": "lejax", "scan": "scan", "plain": "no penalty"}
    rows, imports = [], []
    for row in read("first_call")["rows"]:
        median = row["median"]
        calls = [digits(median[k]) for k in ("first_call", "tracing", "compiling", "second_call")]
        rows.append([row["case"], names[row["contender"]], *calls])
        if row["contender"] == "lejax":
            imports.append((median["import_lejax"], median["import_jax"]))
    header = ["case", "program", "first call", "of it tracing", "compiling", "second call"]
    ours, others = ([digits(f(x)) for f in (min, max)] for x in zip(*imports, strict=True))
    note = (
        f"Before it, the import of lejax takes {' to '.join(ours)} s beside that of JAX, Equinox and "
        f"optax, {' to '.join(others)} s.\n\n"
    )
    return markdown(header, rows, 2) + "\n\n" + note + source("first_call", engine=True)


def gradients() -> str:
    names = {
        "lejax": "lejax, checkpoints (default)",
        "lejax direct": "lejax, direct",
        "scan jit": "scan",
        "lyapax jit": "lyapax",
    }
    rows = []
    for row in read("gradients")["rows"]:
        for name, found in row["contenders"].items():
            cells = [quartiles(found["over_lejax"]), microseconds(found["seconds_per_step"])]
            cells += [mebibytes(found["temporary_bytes"]), digits(found["compile_time"])]
            cells += [power(found["disagreement"])]
            rows.append([row["problem"], names[name], *cells])
    header = ["problem", "program", "time / lejax", "µs a step", "memory, MiB", "compiling, s"]
    header += ["difference"]
    return markdown(header, rows, 2) + "\n\n" + source("gradients", engine=True)


def structured() -> str:
    rows = [
        [
            row["problem"],
            quartiles(row["whole_over_blocks"]),
            microseconds(row["seconds_per_step"]["blocks"]),
            microseconds(row["seconds_per_step"]["whole"]),
            power(row["difference_of_mean_exponent"]),
        ]
        for row in read("structured")["rows"]
    ]
    header = ["network", "time without / with blocks", "with, µs a step", "without, µs a step"]
    header += ["difference of mean exponents"]
    return markdown(header, rows) + "\n\n" + source("structured", engine=True)


def found_blocks() -> str:
    names = {
        "Stack": "`Stack`, which declares its blocks",
        "one module": "one module, an array for each part of the state",
        "one array": "one module, one array for all",
        "one dense block": "the same without the search, one dense block",
    }
    data = read("found_blocks")
    rows = [
        [
            names[row["cell"]],
            quartiles(row["over_stack"]),
            microseconds(row["seconds_per_step"]),
            digits(row["compile_seconds"]),
            power(row["largest_difference"]),
            digits(row["in_standard_errors"]),
        ]
        for row in data["layers"]
    ]
    search = data["search"]
    header = ["two layers of LSTM", "time / `Stack`", "µs a step", "compiling, s"]
    header += ["largest difference", "in standard errors"]
    cost = (
        f"Where there is nothing to find, in a GRU of {search['units']} units, the search takes "
        f"{digits(search['search_milliseconds'], 3)} ms of a first call of "
        f"{digits(search['first_call_with'])} s.\n\n"
    )
    return markdown(header, rows) + "\n\n" + cost + source("found_blocks", engine=True)


def orthonormalizers() -> str:
    data = read("orthonormalizers")["rows"]
    names = [name for name in data[0]["contenders"] if name != "Householder"]
    rows = []
    for row in data:
        found = row["contenders"]
        ratios = [digits(found[name]["householder_over_this"]["median"]) for name in names]
        largest = max(found[name]["error"] for name in names)
        householder = microseconds(found["Householder"]["seconds_per_step"])
        rows.append([row["problem"], *ratios, householder, power(largest)])
    header = ["problem", *(name.replace("Panels ", "Panels, ") for name in names)]
    header += ["Householder, µs a step", "largest difference"]
    return markdown(header, rows) + "\n\n" + source("orthonormalizers", engine=True)


def pareto() -> str:
    rows = []
    for row in read("pareto")["rows"]:
        for point in row["points"]:
            if point["orthonormalizer"] == "default":
                every = f"{point['qr_interval']}{', chosen' if point['automatic'] else ''}"
                cells = [every, microseconds(point["seconds_per_step"]), power(point["error"])]
                cells += [power(point["bound"]), "yes" if point["refused"] else ""]
                rows.append([row["problem"], *cells])
    header = ["problem", "interval", "µs a step", "error", "estimate of it", "refused"]
    return markdown(header, rows) + "\n\n" + source("pareto", engine=True)


def scaling() -> str:
    data = read("scaling")
    rows = [
        [
            f"{row['d']}",
            f"{row['k']}",
            f"{row['T']}",
            digits(row["microseconds_per_step"], 3),
            mebibytes(row["memory_bytes"]),
        ]
        for row in data["rows"]
    ]
    header = ["size of the state d", "exponents k", "steps T", "µs a step", "memory, MiB"]
    names = {
        "seconds ~ T^b": "time of a run against T",
        "memory ~ T^b": "memory against T",
        "seconds per step ~ d^b, k = d": "time of a step against d, k = d",
        "memory ~ d^b, k = d": "memory against d, k = d",
        "seconds per step ~ k^b, d fixed": "time of a step against k, d = 512",
    }
    fits = [[names[name], f"{abs(value):.1f}"] for name, value in data["fits"].items()]
    tables = [markdown(header, rows, 0), markdown(["fit", "exponent b"], fits)]
    return "\n\n".join([*tables, source("scaling", engine=True)])


def training_step() -> str:
    data = read("regularized_step")["rows"]
    cells = {(r["size"], r["exponents"], r["penalized_sequences"]): r for r in data}
    sizes, exponents, counts = (sorted(set(values)) for values in zip(*cells, strict=True))
    rows = [
        [f"{size}", f"{k}", *(quartiles(cells[size, k, b]["ratio"]) for b in counts)]
        for size in sizes
        for k in exponents
    ]
    for k in exponents:
        bounds = [digits(cells[sizes[0], k, b]["bound"]) for b in counts]
        rows.append(["arithmetic", f"{k}", *bounds])
    header = ["units", "exponents k", *(f"b = {b}" for b in counts)]
    return markdown(header, rows, 0) + "\n\n" + source("regularized_step", engine=True)


def population() -> str:
    data = read("population")
    rows = []
    for cell in ("tanh", "gru", "lstm"):
        of = data[f"{cell}.seconds_spectra_of"]
        rows.append(
            [
                {"tanh": "tanh"}.get(cell, cell.upper()),
                *(digits(of[name]) for name in ("lejax, one device", "lejax, 2 devices")),
                *(digits(of[name]) for name in ("torch, 1 threads", "torch, 2 threads")),
                quartiles(data[f"{cell}.torch_over_lejax"]),
                digits(data[f"{cell}.seconds"] / 60),
            ]
        )
    header = ["200 networks of 32 units", "lejax, 1 core, s", "2 cores, s"]
    header += ["PyTorch, 1 thread, s", "2 threads, s", "PyTorch / lejax, 2 cores"]
    header += ["all of the study, min"]
    return (
        markdown(header, rows)
        + "\n\n"
        + source("population", machine="machine_of_times", engine=True)
    )


def sweep() -> str:
    rows = []
    for case in read("sweep")["throughput"]:
        for row in case["rows"]:
            cells = [digits(row["spectra_per_second"], 3), quartiles(row["vmap_over_this"])]
            cells += [digits(row["seconds_of_the_whole_call"])]
            name = f"{case['members']} x {case['case']}, {case['steps']} steps"
            rows.append([name, row["contender"], *cells])
    header = ["spectra", "how", "spectra a second", "time of `vmap` / this"]
    header += ["whole call, s"]
    return markdown(header, rows, 2) + "\n\n" + source("sweep", engine=True)


def long_runs() -> str:
    data = read("sweep")
    rows = []
    for fixed, adaptive in zip(data["memory"]["fixed"], data["memory"]["tolerance"], strict=True):
        cells = [digits(fixed["peak_mebibytes"], 3), digits(fixed["seconds"], 3)]
        cells += [digits(adaptive["peak_mebibytes"], 3), digits(adaptive["seconds"], 3)]
        rows.append([f"{fixed['chunks']} x {fixed['chunk_steps']}", *cells])
    longest = data["longest_run"]
    cells = [digits(longest["peak_mebibytes"], 3), digits(longest["seconds"], 3), "-", "-"]
    rows.append([f"{longest['chunks']} x {longest['chunk_steps']}", *cells])
    header = ["chunks x steps", "peak memory, MiB", "time, s", "with a tolerance, MiB", "s"]
    return markdown(header, rows) + "\n\n" + source("sweep", engine=True)


def geometry() -> str:
    data = read("geometry")
    flip, vectors = data["flip_flop"], data["covariant_vectors"]
    adam = max(run["guesses_arrived"] for run in flip["adam"])
    rows = [
        [
            f"`find_fixed_points` of a GRU of {flip['hidden_size']} units, {flip['guesses']} guesses",
            f"{digits(flip['seconds'])} s, first call {digits(flip['first_call_seconds'])} s",
            f"{flip['fixed_points']} points, residual below {power(flip['largest_residual'])}",
        ],
        [
            "Adam on the speed of the same guesses, the best of three rates",
            f"{digits(flip['adam_over_lejax'])} times as long or more",
            f"{100 * adam:.1f} % of the guesses arrived",
        ],
        [
            f"`covariant_statistics`, a tanh network of {vectors['hidden_size']} units",
            f"{digits(1e6 * vectors['seconds_per_step']['covariant vectors'], 3)} µs a step",
            f"{quartiles(vectors['over_default_spectrum'])} times its spectrum",
        ],
    ]
    manifolds = read("manifolds")["systems"]
    for name, found in manifolds.items():
        seconds = found["seconds"]
        rows.append(
            [
                f"manifolds of the map “{name}”, {found['max_length']:.0f} long",
                f"{digits(1e3 * (seconds['stable'] + seconds['unstable']))} ms",
                f"{sum(found['segments'].values())} segments, then "
                f"{found['crossings']} crossings in {digits(1e3 * seconds['crossings'])} ms",
            ]
        )
    orbits = read("piecewise_orbits")
    linear = orbits["almost_linear"]
    rows += [
        [
            "cycles of five piecewise-linear maps, all words, with certificates",
            f"{digits(orbits['suite_seconds'])} s",
            f"{orbits['recall']['found']} of {orbits['recall']['cycles']} cycles also by search",
        ],
        [
            f"all fixed points of an AL-RNN with {linear['regions']} regions",
            f"{digits(1e3 * linear['seconds'])} ms, first call {digits(linear['first_call'])} s",
            "",
        ],
    ]
    lines = source("geometry", "manifolds", "piecewise_orbits", engine=True)
    return markdown(["what", "time", "result"], rows, 3) + "\n\n" + lines


def event_flow() -> str:
    rows = []
    for name, row in read("event_flow")["rows"].items():
        solvers = {n: found for n, found in row["diffrax"].items() if "told" not in n}
        fastest = min(solvers, key=lambda n: solvers[n]["time_over_lejax"]["median"])
        best = min(found["error"] for found in solvers.values())
        switches = f"{row['switches']} switch{'es' * (row['switches'] > 1)}"
        cells = [digits(1e3 * row["seconds"]), power(row["error"])]
        cells += [f"{quartiles(solvers[fastest]['time_over_lejax'])}, {fastest}"]
        cells += [power(solvers[fastest]["error"]), power(best)]
        rows.append([f"{name}; {switches}", *cells])
    header = ["system", "lejax, ms", "its error", "time of the fastest of diffrax / lejax"]
    header += ["error of that", "least error of diffrax"]
    return markdown(header, rows) + "\n\n" + source("event_flow")


TABLES = {
    table.__name__: table
    for table in (
        speed,
        speed_short,
        peers,
        first_call,
        gradients,
        structured,
        found_blocks,
        orthonormalizers,
        pareto,
        scaling,
        training_step,
        population,
        sweep,
        long_runs,
        geometry,
        event_flow,
        gpu.gpu_batches,
        gpu.gpu_single,
        gpu.gpu_chunks,
        gpu.gpu_bias,
        slower,
    )
}
