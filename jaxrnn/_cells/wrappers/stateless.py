"""`ResidualWrapper` and `DeviceWrapper`, which add neither parameters nor states."""

from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ..._base.errors import expect
from ..._base.inputs import check_like
from ..._base.trees import with_structure
from ..._base.typing import DType, Key, Params, PyTree, State
from .. import fields
from .base import MappedOutput, WrapperCell


@final
@fields.dataclass
class ResidualWrapper(MappedOutput[State]):
    """Adds the inputs of a cell to its output; the new state is unaffected.

    Attributes:
        cell: The wrapped cell.
        residual_fn: `residual_fn(inputs, outputs)`, a function of one step, which
            replaces the sum. The function must treat each row separately, and return
            arrays with the shapes of `output_size`. Default: the sum.

    Raises:
        TypeError: If `cell` is not an RNNCell, or `residual_fn` is not a function.

    Source: arXiv:1609.08144; `tf.compat.v1.nn.rnn_cell.ResidualWrapper`.
    """

    residual_fn: Callable[[PyTree, PyTree], PyTree] | None = fields.function(
        default=None
    )

    def map_output(self, inputs: PyTree, output: PyTree) -> PyTree:
        """The sum of the inputs and the output.

        Raises:
            ValueError: If there is no `residual_fn`, and inputs and output differ in
                structure or shape.
        """
        return (self.residual_fn or _add)(inputs, output)


def _add(inputs: PyTree, output: PyTree) -> PyTree:
    fix = "The wrapper adds the inputs to the output. For another operation, pass a "
    fix += "`residual_fn`."
    check_like("inputs", inputs, output, strict=False, any_dtype=True, fix=fix)
    return jax.tree.map(jnp.add, with_structure(output, inputs), output)


def _without_device(name: str, value: Any) -> Any:
    """Replaces a device, which cannot be pickled, by its name."""
    if isinstance(value, jax.Device):
        return f"{value.platform}:{value.id}"
    return value


@final
@fields.dataclass
class DeviceWrapper(WrapperCell[State]):
    """Places the inputs, states and outputs of a cell on a device or a mesh.

    Under jit, a placement is a constraint on the compiler. JAX ignores a single device
    if the program runs on several devices; use a sharding in that case. Placements
    never change values.

    Attributes:
        cell: The wrapped cell.
        device: A `jax.Device`, a TensorFlow-like name ("/cpu:0", "gpu:1"), a
            `jax.sharding.Sharding`, or a `PartitionSpec` for the current mesh, with
            the batch axis first. The wrapper stores a device by its name.

    Raises:
        TypeError: If `cell` is not an RNNCell.

    Source: `tf.compat.v1.nn.rnn_cell.DeviceWrapper`.
    """

    device: Any = fields.checked(_without_device)

    def zero_state(self, batch_size: int, dtype: DType) -> State:
        """The zero state of the wrapped cell, on the device; see `RNNCell.zero_state`.

        Raises:
            ValueError, RuntimeError: If `device` is not an available device.
        """
        return self._place(self.cell.zero_state(batch_size, dtype))

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, State]:
        """Runs one step; see `RNNCell.apply`.

        Raises:
            ValueError, RuntimeError: If `device` is not an available device.
        """
        inputs, state = self._place((inputs, state))
        return self._place(self.cell.apply(params, inputs, state, key))

    def _place(self, tree: PyTree) -> PyTree:
        device = self.device
        device = _named(device) if isinstance(device, str) else device
        if not isinstance(device, PartitionSpec):
            return jax.device_put(tree, device)
        constrain = jax.lax.with_sharding_constraint
        return jax.tree.map(
            lambda x: constrain(x, PartitionSpec(*device[: x.ndim])), tree
        )


def _named(name: str) -> Any:
    """The device for a name such as "/device:GPU:1", "/cpu:0" or "tpu:0".

    For an absent platform, JAX raises a RuntimeError.
    """
    platform, _, index = name.removeprefix("/device:").strip("/").lower().partition(":")
    devices = {device.id: device for device in jax.devices(platform)}
    number = int(index or 0)
    must = f"name one of the devices {list(devices)} of the platform"
    expect(number in devices, "device", must, name)
    return devices[number]
