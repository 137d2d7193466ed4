"""`tf.compat.v1.lite.experimental.nn`: TensorFlow Lite's cells and `dynamic_rnn`.

`dynamic_rnn`, `TFLiteLSTMCell` and `TfLiteRNNCell` compute the same results as
`dynamic_rnn`, `LSTMCell` and `BasicRNNCell` of `jaxrnn`. Only the layout of the
parameters differs. As in TensorFlow Lite checkpoints, each gate has one matrix for the
inputs and one for the state, and all matrices are transposed.

    >>> import jax, jax.numpy as jnp, jaxrnn.lite
    >>> cell = jaxrnn.lite.TFLiteLSTMCell(5)
    >>> x = jnp.ones((7, 4, 3), jnp.float32)  # [time, batch, depth]
    >>> params = cell.init(jax.random.key(0), x[0])
    >>> params["input_to_forget_w"].shape, params["cell_to_forget_w"].shape
    ((5, 3), (5, 5))
    >>> outputs, _ = jaxrnn.lite.dynamic_rnn(cell.bind(params), x, dtype=jnp.float32)
    >>> outputs.shape
    (7, 4, 5)
"""

from typing import final

import jax
import jax.numpy as jnp

from ._base.arguments import check_time_major
from ._base.errors import KindError, describe, expect
from ._base.typing import (
    ArrayLike,
    DType,
    Implementation,
    Lengths,
    Params,
    PyTree,
    RNNCellLike,
)
from ._cells.basic_rnn import BasicRNNCell
from ._cells.equations import Equations
from ._cells.lstm import LSTMCell
from ._cells.params import ParamSpec, Specs, glorot_uniform, zeros
from ._drivers.dynamic_rnn import dynamic_rnn as core_dynamic_rnn
from ._run.memory import Strategy

__all__ = ["TFLiteLSTMCell", "TfLiteRNNCell", "dynamic_rnn"]


_INIT_ORDER = ("input", "forget", "cell", "output")
_GATE_ORDER = ("input", "cell", "forget", "output")  # Blocks i, j, f and o.
_PEEPHOLES = ("w_f_diag", "w_i_diag", "w_o_diag")


def _check_projects(cell: LSTMCell | BasicRNNCell) -> None:
    core = "LSTMCell" if isinstance(cell, LSTMCell) else "BasicRNNCell"
    must = "be True, because the cells of TensorFlow Lite have kernels of inputs"
    fix = f"Use `jaxrnn.{core}`."
    expect(cell.project_inputs, "project_inputs", must, False, fix)


@final
class TFLiteLSTMCell(LSTMCell):
    """`LSTMCell` with separate, transposed weights for each gate.

    Shapes, for input size `I`, `H = num_units` and `P = num_proj` (`P = H` without a
    projection): inputs `[batch, I]`; c `[batch, H]`; h and output `[batch, P]`; for
    each gate (input, forget, cell, output) `input_to_<gate>_w` `[H, I]`,
    `cell_to_<gate>_w` `[H, P]` and `<gate>_bias` `[H]`; the peepholes `w_f_diag`,
    `w_i_diag`, `w_o_diag` `[H]`; `projection/kernel` `[P, H]`. For the equations, see
    `LSTMCell`, where block j is the gate "cell".

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The largest magnitude of c', at least 0. If None, c' is not clipped.
        initializer: Initializes weights and peepholes. Default: Glorot uniform.
        num_proj: `P`, the size of h after a projection. If None, h is not projected.
        proj_clip: The largest magnitude of h' after a projection, at least 0. If None,
            h' is not clipped.
        num_unit_shards: Accepted for compatibility with TensorFlow, but ignored.
        num_proj_shards: Accepted for compatibility with TensorFlow, but ignored.
        forget_bias: A number that each step adds to f; not stored in the bias.
        state_is_tuple: Whether the state is an `LSTMStateTuple`. If False, the state is
            one array `[batch, H + P]`, c and h concatenated.
        activation: A function or the name of a Keras activation. Default: tanh.
        reuse: Accepted for compatibility with TensorFlow, but ignored.
        name: The name of the step in profiles. Default: the name of the class.
        dtype: The required dtype of parameters and inputs. If None, the cell accepts
            every floating-point dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: `tf.compat.v1.lite.experimental.nn.TFLiteLSTMCell`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_projects(self)

    @property
    def equations(self) -> Equations:
        """The equations of an `LSTMCell`; see `AffineCell`."""
        return super().equations

    def param_specs(self, depth: int) -> Specs:
        """Specs of the weights and biases, and of any peepholes and projection."""
        units, weight = self.num_units, self.initializer or glorot_uniform
        h = units if self.num_proj is None else self.num_proj
        specs: Specs = {
            f"{source}_to_{gate}_w": ParamSpec((units, columns), weight)
            for source, columns in (("input", depth), ("cell", h))
            for gate in _INIT_ORDER
        }
        specs |= {f"{gate}_bias": ParamSpec((units,), zeros) for gate in _INIT_ORDER}
        if self.use_peepholes:
            specs |= dict.fromkeys(_PEEPHOLES, ParamSpec((units,), weight))
        if self.num_proj is not None:
            specs["projection"] = {"kernel": ParamSpec((h, units), weight)}
        return specs

    def stage_params(self, params: Params) -> Params:
        """Converts to parameters of `LSTMCell`; see `AffineCell.stage_params`."""
        from_inputs, from_h, bias = (
            jnp.concatenate([params[name.format(gate)] for gate in _GATE_ORDER])
            for name in ("input_to_{}_w", "cell_to_{}_w", "{}_bias")
        )
        kernel = jnp.concatenate([from_inputs, from_h], axis=1).T
        core: Params = {"kernel": kernel, "bias": bias}
        core |= {name: params[name] for name in _PEEPHOLES if name in params}
        if "projection" in params:
            core["projection"] = {"kernel": params["projection"]["kernel"].T}
        return core


@final
class TfLiteRNNCell(BasicRNNCell):
    """`BasicRNNCell` with separate, transposed weights for inputs and state.

    Each step computes::

        h' = activation(x input_weights^T + h recurrent_weights^T + bias)

    Shapes, for input size `I` and `H = num_units`: inputs `[batch, I]`; state and
    output `[batch, H]`; `input_weights` `[H, I]`; `recurrent_weights` `[H, H]`; `bias`
    `[H]`.

    Attributes:
        num_units: `H`, at least 0.
        activation: A function or the name of a Keras activation. Default: tanh.
        reuse: Accepted for compatibility with TensorFlow, but ignored.
        name: The name of the step in profiles. Default: the name of the class.
        dtype: The required dtype of parameters and inputs. If None, the cell accepts
            every floating-point dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a number is out of range, an activation is unknown, or `dtype` is
            not floating-point.

    Source: `tf.compat.v1.lite.experimental.nn.TfLiteRNNCell`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_projects(self)

    @property
    def equations(self) -> Equations:
        """The equations of a `BasicRNNCell`; see `AffineCell`."""
        return super().equations

    def param_specs(self, depth: int) -> Specs:
        """Specs of both weight matrices and the bias."""
        units = self.num_units
        return {
            "input_weights": ParamSpec((units, depth), glorot_uniform),
            "recurrent_weights": ParamSpec((units, units), glorot_uniform),
            "bias": ParamSpec((units,), zeros),
        }

    def stage_params(self, params: Params) -> Params:
        """Converts to parameters of `BasicRNNCell`; see `AffineCell.stage_params`."""
        weights = params["input_weights"], params["recurrent_weights"]
        return {"kernel": jnp.concatenate(weights, axis=1).T, "bias": params["bias"]}


def dynamic_rnn(
    cell: RNNCellLike,
    inputs: ArrayLike,
    sequence_length: Lengths | None = None,
    initial_state: PyTree = None,
    dtype: DType | None = None,
    parallel_iterations: int | None = None,
    swap_memory: bool | Strategy = False,
    time_major: bool = True,
    scope: str | None = None,
    *,
    implementation: Implementation | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs `cell` over the time axis of one time-major array.

    This function equals `jaxrnn.dynamic_rnn(..., time_major=True)`, but accepts only
    one array, not a nest.

    Args:
        cell: A bound cell (`cell.bind(params)`) of this module or of `jaxrnn`, or any
            object that implements the RNNCell protocol.
        inputs: One array `[time, batch, ...]`.
        sequence_length: The length of each row, `[batch]`, integers. Default: all
            steps.
        initial_state: A state with the structure of `cell.state_size`, each leaf
            `[batch, ...]`. Default: the cell's zero state, which requires `dtype`.
        dtype: As in `jaxrnn.dynamic_rnn`.
        parallel_iterations: As in `jaxrnn.dynamic_rnn`.
        swap_memory: As in `jaxrnn.dynamic_rnn`.
        time_major: Must be True.
        scope: The name of the loop in profiles; "rnn" by default.
        implementation: As in `jaxrnn.dynamic_rnn`.

    Returns:
        `(outputs, state)` as in `jaxrnn.dynamic_rnn`, with outputs
        `[time, batch, ...]`.

    Raises:
        AssertionError: If `time_major` is False. The error is also a TypeError.
        TypeError: See `jaxrnn.dynamic_rnn`.
        ValueError: If `inputs` is a nest; see also `jaxrnn.dynamic_rnn`.

    Source: `tf.compat.v1.lite.experimental.nn.dynamic_rnn`.
    """
    check_time_major(time_major)
    if not time_major:
        raise KindError(
            "`time_major` must be True, got False. Swap the first two axes of the "
            "inputs and of the outputs."
        )
    if inputs is not None and not jax.tree_util.all_leaves([inputs]):
        raise ValueError(
            "`inputs` must be one array [time, batch, ...], got "
            f"{describe(inputs)}. For a pytree of arrays, use `jaxrnn.dynamic_rnn`."
        )
    return core_dynamic_rnn(
        cell,
        inputs,
        sequence_length,
        initial_state,
        dtype,
        parallel_iterations,
        swap_memory,
        time_major=True,
        scope=scope,
        implementation=implementation,
    )
