"""A wrapper that places the arrays of a cell on devices."""

from typing import Any, final

import jax
from jax.sharding import PartitionSpec, Sharding

from .._base.arguments import check_instance
from .._base.errors import InvalidValue
from .._base.typing import Array, DType, Key, Params, PyTree
from .._cells import fields
from .base import WrapperCell


def _check_device(name: str, value: Any) -> Any:
    kinds = str | jax.Device | Sharding | PartitionSpec
    what = "a jax.Device, its name, a Sharding or a PartitionSpec"
    return check_instance(name, value, kinds, what)


@final
@fields.dataclass
class DeviceWrapper(WrapperCell):
    """Places the inputs, states and outputs of a cell on a device or a mesh.

    Under jit, a placement is a constraint on the compiler. JAX ignores a single device
    if the program runs on several devices; use a sharding in that case. Placements
    never change values.

    Attributes:
        cell: The wrapped cell.
        device: A `jax.Device`, a TensorFlow-like name ("/cpu:0", "gpu:1"), a
            `jax.sharding.Sharding`, or a `PartitionSpec` for the current mesh, with
            the batch axis first. A pickle stores a device by platform and number.

    Raises:
        TypeError: If `cell` is not an RNNCell, or `device` has none of these forms.

    Source: `tf.compat.v1.nn.rnn_cell.DeviceWrapper`.
    """

    device: Any = fields.checked(_check_device)

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """The zero state of the wrapped cell, on the device; see `RNNCell.zero_state`.

        Raises:
            ValueError: If `device` does not name an available device.
        """
        return self._place(self.cell.zero_state(batch_size, dtype))

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            ValueError: If `device` does not name an available device.
        """
        inputs, state = self._place((inputs, state))
        return self._place(self.cell.apply(params, inputs, state, key))

    def __getstate__(self) -> Any:
        rest, activations = super().__getstate__()
        if isinstance(self.device, jax.Device):  # Devices cannot be pickled.
            rest["device"] = {"name": f"{self.device.platform}:{self.device.id}"}
        return rest, activations

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        if isinstance(self.device, dict):
            fields.set_field(self, "device", _named(self.device["name"]))

    def _place(self, tree: PyTree) -> PyTree:
        device = self.device
        if isinstance(device, str):
            return jax.device_put(tree, _named(device))
        if not isinstance(device, PartitionSpec):
            return jax.device_put(tree, device)

        def constrain(leaf: Array) -> Array:
            spec = PartitionSpec(*device[: leaf.ndim])
            return jax.lax.with_sharding_constraint(leaf, spec)

        return jax.tree.map(constrain, tree)


def _named(name: str) -> Any:
    """The device for a name such as "/device:GPU:1", "/cpu:0" or "tpu:0"."""
    platform, _, index = name.removeprefix("/device:").strip("/").lower().partition(":")
    try:
        return {d.id: d for d in jax.devices(platform)}[int(index or 0)]
    except (RuntimeError, KeyError, ValueError):
        found = ", ".join(f"{d.platform}:{d.id}" for d in jax.devices())
        raise InvalidValue(
            f"`device` must name an available device, got {name!r}. Available: {found}."
        ) from None
