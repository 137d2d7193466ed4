"""Cells constructed with the conventions of other libraries."""

import dataclasses
import inspect

import jax
import pytest

import jaxrnn
from jaxrnn import contrib

DEPTH = "The depth of the inputs is not an argument"
REFUSED = {
    "depth_first": (
        lambda: jaxrnn.LSTMCell(3, 16),
        rf"LSTMCell: `use_peepholes` .* got 16\. {DEPTH}: use `LSTMCell\(16\)` for 16",
    ),
    "depth_first_gru": (
        lambda: jaxrnn.GRUCell(3, 16),
        rf"`activation` .* got 16\. {DEPTH}: use `GRUCell\(16\)` for 16 units",
    ),
    "units_alone": (
        lambda: contrib.CFNCell(3, 16),
        rf"`activation` .* got 16\. {DEPTH}: use `CFNCell\(16\)` for 16 units",
    ),
    "hidden_size": (
        lambda: jaxrnn.LSTMCell(hidden_size=16),
        r"LSTMCell: `hidden_size` is not an argument of the constructor\. It is `n",
    ),
    "hidden_size_of_units": (
        lambda: contrib.CFNCell(hidden_size=16),
        r"CFNCell: `hidden_size` is .* It is `units` here",
    ),
    "features": (
        lambda: jaxrnn.GRUCell(features=16),
        "GRUCell: `features` is .* It is `num_units` of a cell",
    ),
    "input_size": (
        lambda: jaxrnn.LSTMCell(input_size=3, hidden_size=16),
        f"LSTMCell: `input_size` is .* {DEPTH}: `init` reads it from them",
    ),
    "num_layers": (
        lambda: jaxrnn.LSTMCell(16, num_layers=2),
        r"LSTMCell: `num_layers` is .* `MultiRNNCell\(\[cell, \.\.\.\]\)` stacks",
    ),
    "bidirectional": (
        lambda: jaxrnn.LSTMCell(16, bidirectional=True),
        "LSTMCell: `bidirectional` is .* to `bidirectional_dynamic_rnn`",
    ),
    "dropout": (
        lambda: jaxrnn.LSTMCell(16, dropout=0.2),
        r"LSTMCell: `dropout` is .*`DropoutWrapper\(cell, output_keep_prob=1 - rate\)`",
    ),
    "recurrent_dropout": (
        lambda: jaxrnn.LSTMCell(16, recurrent_dropout=0.2),
        "state_keep_prob=1 - rate, variational_recurrent=True, mask_per_row=True",
    ),
    "keep_prob": (
        lambda: jaxrnn.DropoutWrapper(jaxrnn.GRUCell(2), keep_prob=0.2),
        "DropoutWrapper: `keep_prob` is .* Use `input_keep_prob`, `output_keep_prob`",
    ),
    "rngs": (
        lambda: jaxrnn.GRUCell(16, rngs=0),
        r"GRUCell: `rngs` is .* Keys go to `cell\.init\(key, inputs\)`",
    ),
    "nothing_known_of": (
        lambda: jaxrnn.GRUCell(16, foo=0),
        r"^GRUCell: `foo` is not an argument of the constructor\.$",
    ),
    "elsewhere": (
        lambda: contrib.AttentionWrapper(jaxrnn.GRUCell(2), None, initial_cell_state=0),
        "AttentionWrapper: `initial_cell_state` is ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    make, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        make()


def test_bind_needs_parameters():
    message = r"^GRUCell: `bind` needs `params`, which `cell\.init\(key, inputs\)`"
    with pytest.raises(TypeError, match=message):
        jaxrnn.GRUCell(2).bind()
    with pytest.raises(TypeError, match=message):
        jaxrnn.GRUCell(2).bind(key=jax.random.key(0))
    assert jaxrnn.GRUCell(2).bind(params={}).params == {}


class Plain(jaxrnn.LSTMCell):
    """A subclass that is not a dataclass."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scaled(jaxrnn.GRUCell):
    """A subclass with one more field."""

    scale: float = 1.0


class Loose(jaxrnn.LSTMCell):
    """A custom constructor that accepts any name."""

    def __init__(self, **sizes):
        super().__init__(sizes["hidden_size"])


def test_cells_of_ones_own():
    of = lambda cell: str(inspect.signature(cell))
    assert of(Plain) == of(jaxrnn.LSTMCell)
    assert of(Scaled).endswith("scale: float = 1.0)")
    assert of(Loose) == "(**sizes)"
    assert Scaled(4, scale=2.0) == dataclasses.replace(Scaled(4), scale=2.0)
    assert Loose(hidden_size=3).num_units == 3
    with pytest.raises(TypeError, match="Scaled: `scales` is not an argument"):
        Scaled(4, scales=2.0)
    # For an object that is not a class, the signature of `__call__` counts.
    with pytest.raises(AttributeError):
        _ = jaxrnn.GRUCell(2).__signature__
