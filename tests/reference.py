"""A second oracle: `dynamic_rnn` and the core cells in NumPy, row by row."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def basic_rnn(p, x, h, **_):
    h = np.tanh(np.concatenate([x, h]) @ p["kernel"] + p["bias"])
    return h, h


def gru(p, x, h, **_):
    gates, candidate = p["gates"], p["candidate"]
    z = sigmoid(np.concatenate([x, h]) @ gates["kernel"] + gates["bias"])
    r, u = np.split(z, 2)
    c = np.concatenate([x, r * h]) @ candidate["kernel"] + candidate["bias"]
    h = u * h + (1 - u) * np.tanh(c)
    return h, h


def gru_cudnn(p, x, h, **_):
    gates, candidate = p["gates"], p["candidate"]
    z = sigmoid(np.concatenate([x, h]) @ gates["kernel"] + gates["bias"])
    r, u = np.split(z, 2)
    of_x, of_h = candidate["input_projection"], candidate["hidden_projection"]
    reset = r * (h @ of_h["kernel"] + of_h["bias"])
    c = np.tanh(x @ of_x["kernel"] + of_x["bias"] + reset)
    h = u * h + (1 - u) * c
    return h, h


def lstm(p, x, state, forget_bias=1.0, cell_clip=None, proj_clip=None):
    c, h = state
    i, j, f, o = np.split(np.concatenate([x, h]) @ p["kernel"] + p["bias"], 4)
    peep = lambda name, c: p[name] * c if name in p else 0.0
    forget = sigmoid(f + forget_bias + peep("w_f_diag", c))
    c = forget * c + sigmoid(i + peep("w_i_diag", c)) * np.tanh(j)
    c = c if cell_clip is None else np.clip(c, -cell_clip, cell_clip)
    h = sigmoid(o + peep("w_o_diag", c)) * np.tanh(c)
    if "projection" in p:
        h = h @ p["projection"]["kernel"]
        h = h if proj_clip is None else np.clip(h, -proj_clip, proj_clip)
    return h, (c, h)


def dynamic_rnn(step, p, xs, lengths, state, **options):
    """Run `xs` [batch, time, depth]; `state` is an array [batch, n] or a pair."""
    outputs, finals = [], []
    for b, (x, n) in enumerate(zip(xs, lengths, strict=True)):
        s = tuple(leaf[b] for leaf in state) if isinstance(state, tuple) else state[b]
        rows = []
        for t in range(min(n, len(x))):
            out, s = step(p, x[t], s, **options)
            rows.append(out)
        width = p["projection"]["kernel"].shape[1] if "projection" in p else None
        width = width or (s[1] if isinstance(s, tuple) else s).shape[0]
        rows += [np.zeros(width)] * (len(x) - len(rows))
        outputs.append(np.stack(rows))
        finals.append(s)
    if isinstance(state, tuple):
        return np.stack(outputs), tuple(
            np.stack(leaf) for leaf in zip(*finals, strict=True)
        )
    return np.stack(outputs), np.stack(finals)
