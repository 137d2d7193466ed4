"""Sequences of ids out of a cell: greedily, by sampling, by beam search.

`greedy`, `sample` and `beam_search` give a `Decoded` of ids, scores and lengths. Each
is also there as a loop function for `raw_rnn`, to be run by it or as part of another:
`greedy_loop`, `sampling_loop`, `beam_loop`. What the cell is given of an id is for
`embed` to say, what its output means for `project`: they close over memories and tied
embeddings, or these stand among the cell's parameters. For beams, `tile_beams` repeats
the rows of a memory.
"""

from .._base.public import set_public_module as _set_public_module
from ._beam import (
    beam_loop as beam_loop,
    beam_search as beam_search,
    tile_beams as tile_beams,
)
from ._decoded import Decoded as Decoded
from ._greedy import greedy as greedy, greedy_loop as greedy_loop
from ._sampling import sample as sample, sampling_loop as sampling_loop

_set_public_module(globals())
