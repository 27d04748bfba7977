"""Spectra of many networks in PyTorch, as fast as it can: one batch, Jacobians by hand, `torch.linalg.qr`."""

import numpy as np


def cell_kind(cell):
    return {1: "tanh", 3: "gru", 4: "lstm"}[cell.weight_hh.shape[-2] // cell.weight_hh.shape[-1]]


def make_run(torch, cells, stream, transient, threads):
    """A function () -> exponents (n, d). `cells` is a batch of n lejax cells without biases."""
    kind = cell_kind(cells)
    weight_ih, weight_hh = (
        torch.tensor(np.asarray(w, np.float64)) for w in (cells.weight_ih, cells.weight_hh)
    )
    rows = torch.tensor(np.asarray(stream, np.float64))
    count, size = weight_hh.shape[0], weight_hh.shape[-1]
    dimension = 2 * size if kind == "lstm" else size
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(dimension, dimension, dtype=torch.float64, generator=generator)
    frame = torch.linalg.qr(start)[0].expand(count, -1, -1)
    step = {"tanh": _tanh, "gru": _gru, "lstm": _lstm}[kind]

    def run():
        torch.set_num_threads(threads)
        with torch.inference_mode():
            driven = torch.einsum("ngi,ti->tng", weight_ih, rows)
            state = torch.zeros(count, dimension, dtype=torch.float64)
            q, total = frame, torch.zeros(count, dimension, dtype=torch.float64)
            for t in range(len(rows)):
                state, pushed = step(torch, driven[t], state, q, weight_hh)
                q, r = torch.linalg.qr(pushed)
                if t >= transient:
                    total += torch.log(torch.abs(torch.diagonal(r, dim1=1, dim2=2)))
            return (total / (len(rows) - transient)).numpy()

    return run


def _times(weight, vector):
    return (weight @ vector[..., None])[..., 0]


def _tanh(torch, driven, state, q, weight):
    state = torch.tanh(driven + _times(weight, state))
    return state, (1 - state**2)[..., None] * (weight @ q)


def _gru(torch, driven, state, q, weight):
    size = state.shape[-1]
    recurrent = _times(weight, state)
    gates = torch.sigmoid(driven[:, : 2 * size] + recurrent[:, : 2 * size])
    reset, update, inner = gates[:, :size], gates[:, size:], recurrent[:, 2 * size :]
    new = torch.tanh(driven[:, 2 * size :] + reset * inner)
    slope = (1 - update) * (1 - new**2)
    factors = torch.cat(
        [slope * inner * reset * (1 - reset), (state - new) * update * (1 - update), slope * reset],
        dim=1,
    )
    weighted = (factors[..., None] * weight).view(-1, 3, size, size).sum(dim=1)
    return new + update * (state - new), weighted @ q + update[..., None] * q


def _lstm(torch, driven, state, q, weight):
    size = state.shape[-1] // 2
    hidden, memory = state[:, :size], state[:, size:]
    total = driven + _times(weight, hidden)
    i, f, g, o = total.split(size, dim=1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    factors = torch.cat([g * i * (1 - i), memory * f * (1 - f), i * (1 - g**2)], dim=1)
    weighted = (factors[..., None] * weight[:, : 3 * size]).view(-1, 3, size, size).sum(dim=1)
    memory = f * memory + i * g
    squashed = torch.tanh(memory)
    of_hidden, of_memory = q[:, :size], q[:, size:]
    pushed = weighted @ of_hidden + f[..., None] * of_memory
    pushed_output = (squashed * o * (1 - o))[..., None] * (weight[:, 3 * size :] @ of_hidden)
    pushed_output = pushed_output + (o * (1 - squashed**2))[..., None] * pushed
    return torch.cat([o * squashed, memory], dim=1), torch.cat([pushed_output, pushed], dim=1)
