"""A small model for decoders, and a loop that runs one of its rows step by step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import drawn

from jaxrnn import GRUCell, LSTMCell, decode

END = 1
START = np.array([2, 0])
UNITS, DEPTH = 4, 3
CELLS = {"lstm": LSTMCell(UNITS), "gru": GRUCell(UNITS)}
STEPS = {kind: jax.jit(cell.apply) for kind, cell in CELLS.items()}


def make_params(kind, vocab, seed, batch=2, dtype=np.float64):
    """The arrays of a model; `memory` is one bias for each row."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(2 * rng.normal(size=shape), dtype)
    step = jax.ShapeDtypeStruct((1, DEPTH), dtype)
    return {
        "state": jax.tree.map(lambda n: draw(batch, n), CELLS[kind].state_size),
        "cell": drawn(CELLS[kind], step, step.dtype, seed, scale=1.0),
        "table": draw(vocab, DEPTH),
        "kernel": draw(UNITS, vocab),
        "memory": draw(batch, vocab),
    }


def make_model(kind, params, beams=1, **changed):
    """A model with these arrays, in which some fields are changed."""
    memory = decode.tile_beams(params["memory"], beams)
    fields = {
        "cell": CELLS[kind].bind(params["cell"]),
        "embed": lambda ids: params["table"][ids],
        "project": lambda output: output @ params["kernel"] + memory,
        "initial_state": params["state"],
        "start_ids": START,
        "eos_id": END,
    }
    return decode.Model(**fields | changed)


class OneRow:
    """One row of a model, whose loop and choice of ids are Python and NumPy."""

    def __init__(self, kind, params, row):
        self.step, self.row = STEPS[kind], row
        self.params = jax.tree.map(np.asarray, params)

    def start(self):
        rows = slice(self.row, self.row + 1)
        state = jax.tree.map(lambda leaf: leaf[rows], self.params["state"])
        return int(START[self.row]), state

    def log_probs(self, last, state):
        p = self.params
        output, state = self.step(p["cell"], p["table"][[last]], state)
        logits = np.asarray(output[0]) @ p["kernel"] + p["memory"][self.row]
        return logits - np.log(np.sum(np.exp(logits))), state

    def score(self, ids):
        """The score of given ids, by teacher forcing."""
        total, (last, state) = 0.0, self.start()
        for i in ids:
            log_probs, state = self.log_probs(last, state)
            total, last = total + log_probs[i], i
        return total

    def beams(self, width, max_length, penalty=0.0, form="power"):
        """`[(score, ids)]`, from beam search with lists; a width of 1 is greedy."""
        rank = lambda beam: -penalized(beam[0], len(beam[1]), penalty, form)
        last, state = self.start()
        live = [(0.0, (), state)]
        for _ in range(max_length):
            longer = [b for b in live if END in b[1]]
            for total, ids, state in live:
                if END in ids:
                    continue
                log_probs, new = self.log_probs(ids[-1] if ids else last, state)
                longer += [(total + p, (*ids, i), new) for i, p in enumerate(log_probs)]
            live = sorted(longer, key=rank)[:width]
        return [(-rank(b), b[1]) for b in live]


def every_sequence(vocab, max_length):
    """All sequences of ids, up to the end id if there is one."""
    every = itertools.product(range(vocab), repeat=max_length)
    return {ids[: ids.index(END) + 1] if END in ids else ids for ids in every}


def penalized(log_prob, length, penalty, form="power"):
    """The score of a sequence: as in `transformers`, or as in TensorFlow ("gnmt")."""
    base = {"power": length, "gnmt": (5 + length) / 6}[form]
    return log_prob / base**penalty


def padded(ids, max_length):
    return list(ids) + [END] * (max_length - len(ids))
