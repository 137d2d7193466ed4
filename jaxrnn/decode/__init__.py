"""Greedy decoding, sampling and beam search for sequences of ids.

`greedy`, `sample` and `beam_search` return a `Decoded` with ids, scores and lengths.
`score` returns the scores of given sequences. `ensemble` combines several models into
one. `greedy_loop`, `sampling_loop` and `beam_loop` return loop functions that run the
same decoders in `raw_rnn`. Your own loop function can also call these loop functions.

The argument `embed` maps ids to the cell's inputs, and `project` maps the cell's output
to logits. Both functions may close over arrays, such as memories and tied embeddings,
that are not parameters of the cell. For beam search, `tile_beams` repeats the rows of a
memory.
"""

from .._base.modules import export as _export
from ._beam import (
    beam_loop as beam_loop,
    beam_search as beam_search,
    tile_beams as tile_beams,
)
from ._ensemble import ensemble as ensemble
from ._greedy import greedy as greedy, greedy_loop as greedy_loop, score as score
from ._model import Decoded as Decoded
from ._sampling import sample as sample, sampling_loop as sampling_loop

_export(globals())
