"""A small model for decoders, and a NumPy reference that runs it step by step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import reference

import jaxrnn
from jaxrnn import GRUCell, LSTMCell, decode

END = 1
KEY = jax.random.key(7)
UNITS, DEPTH = 4, 3
CELLS = {"lstm": LSTMCell(UNITS), "gru": GRUCell(UNITS)}


def make_params(kind, vocab, seed, batch=2, dtype=np.float64):
    """The arrays of a model; `memory` is one bias for each row."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(2 * rng.normal(size=shape), dtype)
    cell = CELLS[kind]
    shapes = jax.eval_shape(lambda: cell.init(KEY, jnp.zeros((1, DEPTH))))
    return {
        "state": jax.tree.map(lambda n: draw(batch, n), cell.state_size),
        "cell": jax.tree.map(lambda x: draw(*x.shape) / 2, shapes),
        "table": draw(vocab, DEPTH),
        "kernel": draw(UNITS, vocab),
        "memory": draw(batch, vocab),
    }


START = np.array([2, 0])


def arguments(kind, params, beams=1):
    """The keyword arguments of all decoders."""
    memory = decode.tile_beams(params["memory"], beams)
    return {
        "cell": CELLS[kind].bind(params["cell"]),
        "embed": lambda ids: params["table"][ids],
        "project": lambda output: output @ params["kernel"] + memory,
        "initial_state": params["state"],
        "start_ids": START,
        "end_id": END,
    }


class InNumPy:
    """One row of a model, run step by step."""

    def __init__(self, kind, params, row):
        self.step = getattr(reference, kind)
        self.p, self.row = jax.tree.map(np.asarray, params), row

    def start(self):
        state = jax.tree.map(lambda leaf: leaf[self.row], self.p["state"])
        return int(START[self.row]), state

    def log_probs(self, last, state):
        out, state = self.step(self.p["cell"], self.p["table"][last], state)
        logits = out @ self.p["kernel"] + self.p["memory"][self.row]
        return logits - np.log(np.sum(np.exp(logits))), state

    def score(self, ids):
        """The score of given ids, by teacher forcing."""
        total, (last, state) = 0.0, self.start()
        for i in ids:
            log_probs, state = self.log_probs(last, state)
            total, last = total + log_probs[i], i
        return total

    def greedy(self, max_time):
        ids, (last, state) = [], self.start()
        while len(ids) < max_time and END not in ids:
            log_probs, state = self.log_probs(last, state)
            last = int(np.argmax(log_probs))
            ids.append(last)
        return ids

    def every_sequence(self, vocab, max_time):
        found = set()
        for ids in itertools.product(range(vocab), repeat=max_time):
            found.add(ids[: ids.index(END) + 1] if END in ids else ids)
        return found

    def beams(self, width, max_time, penalty):
        """`[(score, ids)]`, from beam search with lists."""
        rank = lambda beam: -penalized(beam[0], len(beam[1]), penalty)
        last, state = self.start()
        live = [(0.0, (), state)]
        for _ in range(max_time):
            longer = [b for b in live if END in b[1]]
            for total, ids, state in live:
                if END in ids:
                    continue
                log_probs, new = self.log_probs(ids[-1] if ids else last, state)
                longer += [(total + p, (*ids, i), new) for i, p in enumerate(log_probs)]
            live = sorted(longer, key=rank)[:width]
        return [(-rank(b), b[1]) for b in live]


def penalized(log_prob, length, penalty):
    return log_prob / ((5 + length) / 6) ** penalty


def padded(ids, max_time):
    return list(ids) + [END] * (max_time - len(ids))


def teacher_forced(kind, params, ids, lengths):
    """The scores of given ids `[batch, time]`, from `dynamic_rnn`."""
    fed = jnp.concatenate([jnp.asarray(START, ids.dtype)[:, None], ids[:, :-1]], axis=1)
    cell = CELLS[kind].bind(params["cell"])
    outputs, _ = jaxrnn.dynamic_rnn(
        cell, params["table"][fed], lengths, params["state"]
    )
    logits = jnp.einsum("bth,hv->btv", outputs, params["kernel"])
    log_probs = jax.nn.log_softmax(logits + params["memory"][:, None])
    taken = jnp.take_along_axis(log_probs, ids[..., None], 2)[..., 0]
    inside = np.arange(ids.shape[1]) < np.asarray(lengths)[:, None]
    return jnp.sum(jnp.where(inside, taken, 0), axis=1)
