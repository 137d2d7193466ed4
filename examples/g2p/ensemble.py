"""Several nets that write together: one cell, whose output is their mean."""

import math

import jax
import jax.numpy as jnp

from . import data, model


class Ensemble:
    """The decoders of some nets as one; it keeps the protocol of a cell.

    The inputs are a tuple with those of each, so is the state. The output is the
    logarithm of the mean of the probabilities.
    """

    output_size = model.WRITTEN

    def __init__(self, nets, params):
        pairs = zip(nets, params, strict=True)
        self.cells = [net.decoder.bind(own["decoder"]) for net, own in pairs]
        self.nets, self.params = nets, params

    state_size = property(lambda self: tuple(cell.state_size for cell in self.cells))

    def embed(self, ids):
        """The inputs for phonemes."""
        return tuple(own["written"][ids] for own in self.params)

    def initial_state(self, letters, letter_count):
        """The state before the first phoneme of words."""
        members = zip(self.nets, self.params, strict=True)
        return tuple(
            net.decoder.initial_state(
                model.encode(net, own, letters, letter_count), letter_count
            )
            for net, own in members
        )

    def zero_state(self, batch_size, dtype):
        """Refused by each of the cells: there is no memory."""
        return tuple(cell.zero_state(batch_size, dtype) for cell in self.cells)

    def start(self, state):
        """The state with the keys of each memory, which are computed once."""
        pairs = zip(self.cells, state, strict=True)
        return tuple(cell.start(own) for cell, own in pairs)

    def __call__(self, inputs, state):
        """One step."""
        steps = zip(self.cells, inputs, state, strict=True)
        outputs, states = zip(*(cell(x, own) for cell, x, own in steps), strict=True)
        logits = map(model.project, self.params, outputs)
        log_probs = jnp.stack([jax.nn.log_softmax(each) for each in logits])
        mean = jax.nn.logsumexp(log_probs, axis=0) - math.log(len(self.cells))
        return mean, states


def decoder_arguments(nets, params, letters, letter_count):
    """What `jaxrnn.decode` needs to write the phonemes of words."""
    cell = Ensemble(nets, params)
    return {
        "cell": cell,
        "embed": cell.embed,
        "project": lambda outputs: outputs,
        "initial_state": cell.initial_state(letters, letter_count),
        "start_ids": jnp.full(len(letters), data.START, jnp.int32),
        "end_id": data.END,
        "max_time": data.BUCKETS[-1],
    }
