"""Greedy decoding, sampling and beam search for sequences of ids.

`greedy`, `sample` and `beam_search` return a `Decoded` with ids, scores and lengths.
`score` returns the scores of given sequences. `ensemble` combines several models into
one. These functions run the decoders of `jaxrnn.contrib`; to decide in your own code
how a sequence continues, write a `contrib.Helper` or a `contrib.Decoder`, and run it
with `contrib.dynamic_decode`.

The argument `embed` maps ids to the cell's inputs, and `project` maps the cell's output
to logits. Both functions may close over arrays, such as memories and tied embeddings,
that are not parameters of the cell. For beam search, `tile_beams` repeats the rows of a
memory.
"""

from .._base.modules import export as _export
from ._beams import tile_beams as tile_beams
from ._search import (
    Decoded as Decoded,
    beam_search as beam_search,
    ensemble as ensemble,
    greedy as greedy,
    sample as sample,
    score as score,
)

_export(globals())
