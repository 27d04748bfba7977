"""The table of docs/performance.md of all that was faster."""

from .common import digits, markdown, read


def slower() -> str:
    """Every measured case in which something else was faster."""
    rows = []
    for row in read("speed")["rows"]:
        ratios = {"": "peer_over_lejax", ", both every 10 steps": "peer_over_lejax_both_every_10"}
        for note, key in ratios.items():
            if key in row and row[key]["median"] < 1:
                rows.append([row["problem"] + note, row["peer"], 1 / row[key]["median"]])
    cases = {}
    for row in read("first_call")["rows"]:
        cases.setdefault(row["case"], {})[row["contender"]] = row["median"]["first_call"]
    for case, seconds in cases.items():
        if seconds["lejax"] > seconds["scan"]:
            rows.append([f"first call: {case}", "scan", seconds["lejax"] / seconds["scan"]])
    for row in read("gradients")["rows"]:
        ratio = row["contenders"]["lejax direct"]["over_lejax"]["median"]
        if ratio < 1:
            rows.append([f"gradient: {row['problem']}", "`DirectAdjoint`", 1 / ratio])
    for row in read("found_blocks")["layers"]:
        if row["cell"] == "one array":
            ratio = row["over_stack"]["median"]
            rows.append(["two layers of LSTM in one array", "`Stack`", ratio])
    for case in read("sweep")["throughput"]:
        for row in case["rows"]:
            ratio = row["vmap_over_this"]["median"]
            if "1 device" in row["contender"] and ratio < 1:
                name = f"`sweep` on one device: {case['case']}"
                rows.append([name, "one `vmap`", 1 / ratio])
            if "loop" in row["contender"] and ratio > 1:
                name = f"`vmap`: {case['members']} x {case['case']}"
                rows.append([name, "a Python loop", ratio])
    for row in read("device_gpu")["host"]:
        if row["part"] == "a" and row["device_over_host"] < 1:
            name = f"an H100: {row['networks']} x tanh {row['size']}, {row['steps']} steps"
            rows.append([name, "its host", 1 / row["device_over_host"]])
    for row in read("chunks_gpu")["times"]:
        for name, found in row["contenders"].items():
            ratio = found["sequential_over_this"]["median"]
            if ratio < 1:
                case = f"`ParallelQR` on an H100: {row['problem']}, {name}"
                rows.append([case, "`SequentialQR`", 1 / ratio])
    for row in read("peers")["rows"]:
        for name, found in row["contenders"].items():
            if found["over_lejax"]["median"] < 1:
                case = f"the engine before it was rebuilt: {row['problem']}"
                rows.append([case, name, 1 / found["over_lejax"]["median"]])
    cells = [[*row[:2], digits(row[2])] for row in rows if row[2] >= 1.05]
    return markdown(["case", "faster is", "by a factor of"], cells, 2)
