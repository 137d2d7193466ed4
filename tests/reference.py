"""The textbook's `dynamic_rnn`, and steps of core cells, in NumPy, row by row."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def basic_rnn(p, x, h):
    h = np.tanh(np.concatenate([x, h]) @ p["kernel"] + p["bias"])
    return h, h


def gru(p, x, h):
    gates, candidate = p["gates"], p["candidate"]
    z = sigmoid(np.concatenate([x, h]) @ gates["kernel"] + gates["bias"])
    r, u = np.split(z, 2)
    c = np.concatenate([x, r * h]) @ candidate["kernel"] + candidate["bias"]
    h = u * h + (1 - u) * np.tanh(c)
    return h, h


def lstm(p, x, state):
    c, h = state
    i, j, f, o = np.split(np.concatenate([x, h]) @ p["kernel"] + p["bias"], 4)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
    h = sigmoid(o) * np.tanh(c)
    return h, (c, h)


def dynamic_rnn(step, p, xs, lengths, state):
    """Run `xs` [batch, time, depth] from `state` [batch, n]."""
    outputs, finals = [], []
    for x, n, s in zip(xs, lengths, state, strict=True):
        rows = []
        for t in range(min(n, len(x))):
            out, s = step(p, x[t], s)
            rows.append(out)
        rows += [np.zeros_like(s)] * (len(x) - len(rows))
        outputs.append(np.stack(rows))
        finals.append(s)
    return np.stack(outputs), np.stack(finals)
