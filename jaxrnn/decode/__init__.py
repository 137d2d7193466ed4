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

import typing as _typing

from .._base.modules import export as _export, missing_name as _missing_name
from ._beam_search import tile_beams as tile_beams
from ._search import (
    Decoded as Decoded,
    beam_search as beam_search,
    ensemble as ensemble,
    greedy as greedy,
    sample as sample,
    score as score,
)

_export(globals())

_HINTS = dict.fromkeys(
    ("greedy_loop", "sampling_loop", "beam_loop"),
    "Run a decoder of `jaxrnn.contrib`, such as a `BasicDecoder`, with "
    "`jaxrnn.contrib.dynamic_decode`.",
)

# Hide `__getattr__` from type checkers, so that they report missing names.
if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> _typing.NoReturn:
        """Raises an error that says what to use instead of a name that is gone."""
        raise _missing_name(__name__, name, _HINTS)
