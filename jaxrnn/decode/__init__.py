"""Sequences of ids out of a cell: greedily, by sampling, by beam search.

Each way is a loop function of `raw_rnn`, to be run by it or as part of another one, and
a function that runs it to the end. What the cell is given of an id is `embed`'s to say,
what its output means `project`'s: attention, memories and tied embeddings are closed
over by them or by the cell.
"""

from ._beam import (
    beam_loop as beam_loop,
    beam_search as beam_search,
    tile_beams as tile_beams,
)
from ._decoded import Decoded as Decoded
from ._greedy import greedy as greedy, greedy_loop as greedy_loop
from ._sampling import sample as sample, sampling_loop as sampling_loop
