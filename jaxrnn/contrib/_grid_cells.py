"""The grid LSTMs of contrib, which run along frequency in one or both directions."""

from typing import Any

import jax.numpy as jnp

from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType

from ._grid_lstm import GridLSTM


@fields.dataclass
class GridLSTMCell(GridLSTM):
    """Two LSTMs over windows of each step's inputs: one in time, one in frequency.

    Window k of a block is `x_k = x[start + k * frequency_skip :][: feature_size]`. The
    state of window k is `(c_k, m_k)` in time and `(d_k, n_k)` in frequency, where
    `d_{-1} = n_{-1} = 0`. Both LSTMs read `u_k = [x_k, m_k, n_{k-1}]`:

        i, j, f, o = split(u_k W_f + B_f)
        d_k  = sigmoid(f + forget_bias + p_f) * d_{k-1} + sigmoid(i + p_i) * tanh(j)
        i, j, f, o = split(u_k W_t + B_t)
        c'_k = sigmoid(f + forget_bias + p_f) * c_k + sigmoid(i + p_i) * tanh(j)
        n_k  = sigmoid(o + p_o) * tanh(d_k)          (o of the first product)
        m'_k = sigmoid(o + p_o) * tanh(c'_k)         (o of the second)

    The new c and d are clipped to `[-cell_clip, cell_clip]`. Each peephole p is the sum
    of two diagonal products, and each LSTM has its own peepholes. `p_f` and `p_i` read
    `d_{k-1}` and `c_k`; `p_o` reads `d_k` and `c'_k`. With coupled gates, there is no
    f, because the forget gate is 1 minus the input gate. Blocks are independent of each
    other.

    Shapes, for `F = feature_size`, `H = num_units`, `N` windows in all blocks, and
    `G = 4`, or `G = 3` with coupled gates: inputs `[batch, I]`; output
    `[batch, N * 2H]`, with `m'_k, n_k` of each window; state a named tuple of arrays
    `[batch, H]` with the fields `state_f<window>_b<block>_c` and `..._m`, or one array
    `[batch, N * 2H]`. For block b, the rows of the two kernels `[F + 2H, G * H]` are
    split into the variables `W_f_<b>_<shard>` and `W_t_<b>_<shard>`. The biases
    `B_f_<b>` and `B_t_<b>` are `[G * H]`. The peepholes `W_<gate>_diag_<lstm><of>_<b>`
    are `[H]`. In these names, `<gate>` is F, I or O; `<lstm>` is `freq` or `time`;
    `<of>` is `f` if the peephole multiplies d and `t` if the peephole multiplies c.

    With `state_is_tuple=False`, all blocks in contrib read the states of the first
    block; here, each block reads its own states. contrib ignores `initializer`; here,
    `initializer` draws the kernels and peepholes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c and d through diagonal kernels.
        share_time_frequency_weights: Whether the LSTMs in time and in frequency share
            their parameters.
        cell_clip: The bound on the magnitude of c and d; None for no bound.
        initializer: For kernels and peepholes; None for Glorot uniform.
        num_unit_shards: The number of variables that store each kernel.
        forget_bias: Added to f at each step; not stored in the bias.
        feature_size: `F`, the size of a window; required.
        frequency_skip: The distance from one window to the next; required.
        num_frequency_blocks: A list with the number of windows in each block; required.
        start_freqindex_list: The index of the first input of each block; None for one
            block of all inputs.
        end_freqindex_list: The index after the last input of each block; None for one
            block of all inputs.
        couple_input_forget_gates: Whether the forget gate is 1 minus the input gate.
        state_is_tuple: Whether the state is a named tuple; False for one array.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a required field is missing, the lists are inconsistent with each
            other or with the windows, a number is out of range, or `dtype` is not
            floating-point.

    Source: arXiv:1507.01526; Sainath and Li, Interspeech 2016;
    `tf.contrib.rnn.GridLSTMCell`.
    """

    state_is_tuple: bool = fields.flag(True)
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()


@fields.dataclass
class BidirectionalGridLSTMCell(GridLSTM):
    """Two `GridLSTMCell`s that run over the windows in opposite directions.

    The direction `fwd` runs from the lowest window to the highest, and the direction
    `bwd` from the highest to the lowest. Each direction has its own parameters, which
    are named as in `GridLSTMCell` and stored under `fwd` or `bwd`. Both directions run
    forward in time, so the cell reads no future steps.

    Shapes are as in `GridLSTMCell`, with two exceptions. The output
    `[batch, 2 * N * 2H]` contains all windows of `fwd` and then all windows of `bwd`,
    in the order in which each direction runs. The state is a named tuple of arrays
    `[batch, H]` with the fields `fwd_state_f<window>_b<block>_c` and so on. Window 0 of
    `bwd` is the highest window of a block.

    contrib ignores `initializer`; here, `initializer` draws the kernels and peepholes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c and d through diagonal kernels.
        share_time_frequency_weights: Whether the LSTMs in time and in frequency share
            their parameters.
        cell_clip: The bound on the magnitude of c and d; None for no bound.
        initializer: For kernels and peepholes; None for Glorot uniform.
        num_unit_shards: The number of variables that store each kernel.
        forget_bias: Added to f at each step; not stored in the bias.
        feature_size: `F`, the size of a window; required.
        frequency_skip: The distance from one window to the next; required.
        num_frequency_blocks: A list with the number of windows in each block; required.
        start_freqindex_list: The index of the first input of each block; None for one
            block of all inputs.
        end_freqindex_list: The index after the last input of each block; None for one
            block of all inputs.
        couple_input_forget_gates: Whether the forget gate is 1 minus the input gate.
        backward_slice_offset: The number of inputs by which the windows of `bwd` are
            shifted up. A negative number shifts the windows down. Windows read zeros
            beyond the inputs.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If a required field is missing, the lists are inconsistent with each
            other or with the windows, a number is out of range, or `dtype` is not
            floating-point.

    Source: Sainath and Li, Interspeech 2016;
    `tf.contrib.rnn.BidirectionalGridLSTMCell`.
    """

    backward_slice_offset: int = fields.count(default=0, least=-(2**31))
    reuse: object = fields.unused()
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    scopes = ("fwd", "bwd")

    def windows(self, inputs: Array, scope: str | None, starts: Any) -> list[Array]:
        """The windows of a pass; backward passes start with the highest window."""
        if scope == "fwd":
            return super().windows(inputs, scope, starts)
        offset = self.backward_slice_offset
        inputs = jnp.pad(inputs, [(0, 0), (max(-offset, 0), max(offset, 0))])
        starts = [start + max(offset, 0) for start in starts]
        return super().windows(inputs, scope, starts)[::-1]
