"""Greedy decoding, sampling and beam search for sequences of ids.

A `Model` is a pytree that holds a cell, its initial state and two functions: `embed`
maps ids to the cell's inputs, and `project` maps the cell's output to logits. `greedy`,
`sample` and `beam_search` run a model and return a `Decoded` with ids, scores and
lengths. `score` returns the scores of given sequences. `ensemble` combines several
models into one. For beam search, `tile_beams` repeats the rows of a memory that a model
reads.

To choose ids with your own code, write a `contrib.Helper` or a `contrib.Decoder`, and
run it with `contrib.dynamic_decode`. The functions of this module also use these
classes.
"""

# This folder imports `_drivers` and the folders below. It defines no cells, and its
# only loop is `raw_rnn`.

from .._base.modules import set_module as _set_module
from ._beams import tile_beams
from ._model import Model, ensemble
from ._search import Decoded, beam_search, greedy, sample, score

__all__ = [
    "Decoded", "Model", "beam_search", "ensemble", "greedy", "sample", "score",
    "tile_beams",
]  # fmt: skip

_set_module(__name__)
