"""Decoding of sequences of ids: greedy, by sampling, by beam search; and their scores.

`greedy`, `sample` and `beam_search` return a `Decoded` of ids, scores and lengths.
`score` returns the scores of given sequences. `ensemble` makes one model of several.
Each decoder also exists as a loop function for `raw_rnn`, to be used alone or inside
another loop function: `greedy_loop`, `sampling_loop`, `beam_loop`.

The argument `embed` maps ids to the cell's inputs, and `project` maps the cell's output
to logits; both may close over memories and tied embeddings, unless these are parameters
of the cell. For beam search, `tile_beams` repeats the rows of a memory.
"""

from .._base.public import set_public_module as _set_public_module
from ._beam import (
    beam_loop as beam_loop,
    beam_search as beam_search,
    tile_beams as tile_beams,
)
from ._ensemble import ensemble as ensemble
from ._greedy import greedy as greedy, greedy_loop as greedy_loop
from ._model import Decoded as Decoded
from ._sampling import sample as sample, sampling_loop as sampling_loop
from ._score import score as score

_set_public_module(globals())
