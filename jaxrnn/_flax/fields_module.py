"""`FieldsModule`: the base of nnx modules that are dataclasses."""

import functools
import inspect
from typing import TYPE_CHECKING

from .._base.modules import import_optional
from .._cells.base import BoundCell, check_rnn_cell

if TYPE_CHECKING:
    from flax import nnx
else:
    nnx = import_optional("flax.nnx")


class _Signature:
    """Shows `inspect` the signature of `__init__`, which nnx's metaclass hides."""

    def __get__(self, instance: object | None, owner: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError  # `inspect` then reads the signature of `__call__`.
        return inspect.signature(functools.partial(owner.__init__, None))


class FieldsModule(nnx.Module):
    """An nnx module whose subclasses are dataclasses.

    Lists in fields are stored as tuples, and bound cells raise an error.
    """

    __signature__ = _Signature()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "__orig_class__":  # Python sets this for `RNN[LSTMStateTuple](...)`.
            return
        if isinstance(value, list):  # nnx hashes attributes, but lists have no hash.
            value = tuple(value)
        for each in value if isinstance(value, tuple) else [value]:
            # nnx would reject the arrays of a bound cell with a less clear error.
            if isinstance(each, BoundCell):
                check_rnn_cell(name, each)
        super().__setattr__(name, value)
