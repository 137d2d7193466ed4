"""Cells constructed with the depth first, and constructors of custom cells."""

import dataclasses
import inspect

import jax
import pytest

import jaxrnn
from jaxrnn import GRUCell, contrib
from jaxrnn.extend import fields

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
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    make, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        make()


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


class Bare(jaxrnn.GRUCell):
    """A subclass with a field, but without the decorator."""

    scale: float = fields.number(1.0)


def test_fields_need_the_decorator():
    with pytest.raises(TypeError, match=r"^Bare: `scale` .*Decorate `Bare` with `@fie"):
        Bare(3)


def test_sizes_are_static():
    with pytest.raises(TypeError, match=r"`num_units` must be an integer.*static"):
        jax.jit(lambda n: jaxrnn.GRUCell(n).zero_state(2, "float32"))(3)


def test_cells_of_ones_own():
    of = lambda cell: str(inspect.signature(cell))
    assert of(Plain) == of(jaxrnn.LSTMCell)
    assert of(Scaled).endswith("scale: float = 1.0) -> None")
    assert of(Loose) == "(**sizes)"
    assert Loose(hidden_size=3).num_units == 3


@dataclasses.dataclass(frozen=True, eq=False)
class Checked(jaxrnn.GRUCell):
    """A subclass with a check of its own after the inherited ones."""

    limit: int = 0

    def __post_init__(self):
        super().__post_init__()
        assert self.num_units < self.limit


def test_fields_of_a_base_class_are_checked_in_a_subclass():
    assert Checked(3, "relu", limit=4).activation is GRUCell(3, "relu").activation
    with pytest.raises(ValueError, match="Checked: `num_units` must be at least 0"):
        Checked(-1, limit=4)
    with pytest.raises(AssertionError):
        Checked(5, limit=4)
