"""The tables of docs/performance.md that were measured on a GPU."""

from .common import digits, markdown, microseconds, power, quartiles, read, source


def gpu_batches() -> str:
    data = read("device_gpu")
    host = {
        (row["size"], row["networks"]): row["device_over_host"]
        for row in data["host"]
        if row["part"] == "a"
    }
    rows = []
    for row in data["a"]:
        if "left_out" not in row:
            ratio = host.get((row["size"], row["networks"]))
            cells = [f"{row['networks']}", digits(row["network_steps_a_second"] / 1e3)]
            rows.append([f"{row['size']}", *cells, digits(ratio), digits(row["first_call"])])
    header = ["units", "networks at once", "1000 steps a second", "GPU / its host", "first call, s"]
    return markdown(header, rows, 0) + "\n\n" + source("device_gpu", engine=True)


def gpu_single() -> str:
    data = read("device_gpu")
    rows = [
        [
            f"tanh, {row['size']} units, {row['dtype']}",
            {"every step": "`SequentialQR(every=1)`", "every ten": "`SequentialQR(every=10)`"}.get(
                row["method"], {"automatic": "`SequentialQR()`"}.get(row["method"], row["method"])
            ),
            digits(row["microseconds_a_step"], 3),
            digits(row["compile_seconds"]),
        ]
        for row in data["b"]
        if "left_out" not in row
    ]
    for row in data["c"]:
        if "left_out" not in row:
            name = f"flossing penalty of {row['sequences']} sequences of {row['steps']} steps, "
            name += f"{row['size']} units, {row['dtype']}"
            cells = [row["verb"], f"{digits(1e3 * row['seconds'])} ms in all"]
            rows.append([name, *cells, digits(row["compile_seconds"])])
    for row in data["d"]:
        rate = digits(row["system_steps_a_second"] / 1e6, 3)
        rows.append(
            [
                f"{row['systems']} Lorenz systems, {row['dtype']}",
                "spectra by `vmap`",
                f"{rate} million steps of systems a second",
                digits(row["compile_seconds"]),
            ]
        )
    header = ["problem", "how", "µs a step", "compiling, s"]
    return markdown(header, rows, 2) + "\n\n" + source("device_gpu", engine=True)


def gpu_chunks() -> str:
    data = read("chunks_gpu")
    rows = []
    for row in data["times"]:
        for name, found in row["contenders"].items():
            cells = [microseconds(found["seconds_per_step"])]
            cells += [quartiles(found["sequential_over_this"])]
            rows.append([f"{row['problem']}, {row['steps']} steps", name, *cells])
    header = ["problem", "method", "µs a step", "time of the sequential run / this"]
    return markdown(header, rows, 2) + "\n\n" + source("chunks_gpu", engine=True)


def gpu_bias() -> str:
    rows = []
    for row in read("chunks_gpu")["bias"]:
        cells = [f"{row['overlap']}", power(row["median_difference"])]
        cells += [digits(row["median_in_standard_errors"])]
        cells += [digits(row["largest_in_standard_errors"])]
        cells += ["" if row["result"] == "The run succeeded." else "yes"]
        rows.append([row["problem"], *cells])
    header = ["problem", "overlap", "median difference", "in standard errors", "the largest"]
    header += ["refused"]
    return markdown(header, rows) + "\n\n" + source("chunks_gpu", engine=True)
