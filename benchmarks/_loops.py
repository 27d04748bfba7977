"""The usual loop written by hand, in NumPy or PyTorch: analytic tangents and a QR decomposition at every step.

A tangent step maps `(xp, parameters, input, state, frame)` to the new state (d,) and the pushed frame
(d, k); `xp` is `numpy` or `torch`. No Jacobian is formed where a product with the frame is cheaper.
"""


def spectrum(xp, tangent_step, parameters, state, frame, inputs, steps, dt):
    """The exponents (k,) of `steps` steps from an orthonormal frame."""
    total = 0.0
    for t in range(steps):
        input = None if inputs is None else inputs[t]
        state, frame = tangent_step(xp, parameters, input, state, frame)
        frame, r = xp.linalg.qr(frame)
        total = total + xp.log(xp.abs(xp.diagonal(r)))
    return total / (steps * dt)


def lorenz_step(dt):
    """One Runge-Kutta step of Lorenz-63 and of its variational equation."""

    def slopes(xp, parameters, state, frame):
        (sigma, rho, beta), (x, y, z), (a, b, c) = parameters, state, frame
        field = xp.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z])
        pushed = xp.stack([sigma * (b - a), (rho - z) * a - b - x * c, y * a + x * b - beta * c])
        return field, pushed

    def step(xp, parameters, input, state, frame):
        k1, l1 = slopes(xp, parameters, state, frame)
        k2, l2 = slopes(xp, parameters, state + dt / 2 * k1, frame + dt / 2 * l1)
        k3, l3 = slopes(xp, parameters, state + dt / 2 * k2, frame + dt / 2 * l2)
        k4, l4 = slopes(xp, parameters, state + dt * k3, frame + dt * l3)
        state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state, frame + dt / 6 * (l1 + 2 * l2 + 2 * l3 + l4)

    return step


def tanh_step(xp, parameters, input, state, frame):
    """h' = tanh(J h)."""
    (weight,) = parameters
    state = xp.tanh(weight @ state)
    return state, (1 - state**2)[:, None] * (weight @ frame)


def gru_step(xp, parameters, input, state, frame):
    """The GRU of PyTorch; the rows of its weights are in the order r, z, n."""
    weight_ih, weight_hh, bias, bias_n = parameters
    size = state.shape[0]
    driven, recurrent, pushed = weight_ih @ input + bias, weight_hh @ state, weight_hh @ frame
    gates = 1 / (1 + xp.exp(-(driven[: 2 * size] + recurrent[: 2 * size])))
    d_gates = (gates * (1 - gates))[:, None] * pushed[: 2 * size]
    (reset, update), (d_reset, d_update) = ((x[:size], x[size:]) for x in (gates, d_gates))
    inner = recurrent[2 * size :] + bias_n
    new = xp.tanh(driven[2 * size :] + reset * inner)
    d_inner = d_reset * inner[:, None] + reset[:, None] * pushed[2 * size :]
    d_new = (1 - new**2)[:, None] * d_inner
    tangent = d_new + d_update * (state - new)[:, None] + update[:, None] * (frame - d_new)
    return new + update * (state - new), tangent


def lstm_step(xp, parameters, input, state, frame):
    """The LSTM of PyTorch; the state is h followed by c, the rows of the weights are in the order i, f, g, o."""
    weight_ih, weight_hh, bias = parameters
    size = state.shape[0] // 2
    hidden, memory = state[:size], state[size:]
    total = weight_hh @ hidden + weight_ih @ input + bias
    pushed = weight_hh @ frame[:size]
    i, f, o = (1 / (1 + xp.exp(-total[j * size : (j + 1) * size])) for j in (0, 1, 3))
    g = xp.tanh(total[2 * size : 3 * size])
    d_i, d_f, d_g, d_o = (
        slope[:, None] * pushed[j * size : (j + 1) * size]
        for j, slope in enumerate((i * (1 - i), f * (1 - f), 1 - g**2, o * (1 - o)))
    )
    new_memory = f * memory + i * g
    d_memory = (
        f[:, None] * frame[size:] + memory[:, None] * d_f + i[:, None] * d_g + g[:, None] * d_i
    )
    squashed = xp.tanh(new_memory)
    d_hidden = squashed[:, None] * d_o + (o * (1 - squashed**2))[:, None] * d_memory
    return xp.concatenate([o * squashed, new_memory]), xp.concatenate([d_hidden, d_memory])
