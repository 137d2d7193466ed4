"""LSTMs that run along frequency as well as in time, over windows of the inputs."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from jaxrnn import Choice, LSTMStateTuple, ParamSpec, Run, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Params, PyTree, Specs

from ._contrib_lstm import core_lstm, joined, shard_specs
from ._grid_lstm import GridLSTM, count_windows, required_count

_DIAGONALS = {"W_F_diag": "w_f_diag", "W_I_diag": "w_i_diag", "W_O_diag": "w_o_diag"}


@final
@fields.dataclass
class TimeFreqLSTMCell(extend.SpecsCell):
    """An LSTM that also runs along frequency, over windows of each step's inputs.

    Window k of a step is `x_k = x[k * frequency_skip :][: feature_size]`. The state of
    window k is `(c_k, m_k)`, and `m'_{-1} = 0`:

        i, j, f, o = split([x_k, m_k, m'_{k-1}] W + B)
        c'_k = sigmoid(f + forget_bias + W_F_diag c_k) * c_k
               + sigmoid(i + W_I_diag c_k) * tanh(j)
        c'_k = clip(c'_k, -cell_clip, cell_clip)
        m'_k = sigmoid(o + W_O_diag c'_k) * tanh(c'_k)

    Shapes, for `F = feature_size`, `H = num_units` and `N = num_windows`: inputs
    `[batch, I]` with `(I - F) // frequency_skip + 1 == N`; output `[batch, N * H]`, all
    `m'_k`; state `[batch, N * 2H]`, the pairs `c_k, m_k`; `W` `[F + 2H, 4H]`, blocks i,
    j, f, o, shared by all windows and stored by rows in `W_0`, `W_1`, ...; `B` `[4H]`;
    with peepholes, `W_F_diag`, `W_I_diag`, `W_O_diag` `[H]`.

    contrib declares the state and output sizes of a single window (`2H` and `H`) but
    returns `N` windows, so `dynamic_rnn` can run contrib's cell only with one window.
    Here, `num_windows` sets the number of windows, and the declared sizes are correct.
    contrib ignores `initializer`; here, `initializer` draws `W` and the peepholes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The bound on the magnitude of c'; None for no bound.
        initializer: For `W` and the peepholes; None for Glorot uniform.
        num_unit_shards: The number of variables that store `W`.
        forget_bias: Added to f at each step; not stored in the bias.
        feature_size: `F`, the size of a window; required.
        frequency_skip: The distance from one window to the next.
        num_windows: `N`, by default 1. contrib has no such argument.

    Raises:
        TypeError: If a field has the wrong type.
        ValueError: If `feature_size` is missing, a number is out of range, or `dtype`
            is not floating-point.

    Source: Sainath and Li, Interspeech 2016; `tf.contrib.rnn.TimeFreqLSTMCell`.
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    cell_clip: float | None = fields.number(None, low=0)
    initializer: Initializer | None = fields.initializer()
    num_unit_shards: int = fields.count(default=1)
    forget_bias: float = fields.number(1.0)
    feature_size: int = required_count()
    frequency_skip: int = fields.count(default=1)
    reuse: object = fields.unused()
    _: dataclasses.KW_ONLY
    num_windows: int = fields.count(default=1)
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    state_size = property(lambda self: 2 * self.num_units * self.num_windows)
    output_size = property(lambda self: self.num_units * self.num_windows)

    core = property(lambda self: core_lstm(self, name=extend.scope_name(self)))
    """The LSTM of one window, whose inputs are `[x_k, m'_{k-1}]`."""

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters, whose shapes do not depend on `depth`.

        Raises:
            ValueError: If inputs of this depth do not have `num_windows` windows.
        """
        found = count_windows(depth, self)
        must = f"be {found} (the number of windows in inputs of depth {depth})"
        extend.expect(self.num_windows == found, "num_windows", must, self.num_windows)
        units = self.num_units
        rows = self.feature_size + 2 * units
        specs = shard_specs(self, "W", rows, 4 * units, self.num_unit_shards)
        specs["B"] = ParamSpec((4 * units,), zeros)
        ours = self.core.elementwise_specs()
        return specs | {k: ours[name] for k, name in _DIAGONALS.items() if name in ours}

    def _core_params(self, params: Params) -> Params:
        """The parameters of `core`, whose kernel multiplies `[x_k, m'_{k-1}, m_k]`."""
        kernel = joined(params, "W", self.num_unit_shards)
        cuts = [self.feature_size, self.feature_size + self.num_units]
        x, m, m_below = jnp.split(kernel, cuts)
        staged = {"kernel": jnp.concatenate([x, m_below, m]), "bias": params["B"]}
        return staged | {_DIAGONALS[k]: params[k] for k in params.keys() & _DIAGONALS}

    def step(self, params: Params, inputs: Array, state: Array) -> tuple[Array, Array]:
        """Runs the LSTM of each window for one step; see `SpecsCell.step`."""
        core = self.core
        core_params = self._core_params(params)

        def run_window(k: int, inputs: Array, state: PyTree) -> tuple[PyTree, PyTree]:
            return core.apply(core_params, inputs, state)

        return self._along_frequency(run_window, inputs, state)

    def choose_loop(self, params: Params, run: Run) -> Choice:
        """Chooses the loop of the LSTM of a window; see `RNNCell.choose_loop`."""
        depth = self.feature_size + self.num_units
        shape = (*run.inputs.shape[:2], depth)
        window = jax.ShapeDtypeStruct(shape, run.inputs.dtype)
        state = jax.eval_shape(self._split, run.state)[0]
        inner = run.replace(inputs=window, state=state, keys=None)
        choice = self.core.choose_loop(self._core_params(params), inner)
        return choice.within(self._run)

    def _run(self, loop: Callable, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs each window over all steps."""
        core_params = self._core_params(params)
        steps = run.steps

        def run_window(k: int, inputs: Array, state: PyTree) -> tuple[PyTree, PyTree]:
            own = steps
            if steps.restart_states is not None:
                own = steps.with_restart_states(self._split(steps.restart_states)[k])
            inner = run.of_inner(inputs, state, steps=own, keys=None)
            outputs, state = loop(core_params, inner)
            if steps.returns_states:
                outputs = outputs[0], _joined(outputs[1])
            return outputs, state

        return self._along_frequency(run_window, run.inputs, run.state)

    def _along_frequency(self, run: Callable, inputs: Array, state: Array) -> PyTree:
        """Calls `run(k, inputs, state)` for each window k; returns `(outputs, states)`.

        Args:
            run: The LSTM of one window, for one step or for all steps.
            inputs: `[..., depth]`.
            state: `[batch, N * 2H]`.
        """
        # On a mesh, zeros created from the inputs have the same sharding as the inputs.
        below = jnp.zeros_like(inputs[..., :1])
        below = jnp.broadcast_to(below, (*inputs.shape[:-1], self.num_units))
        outputs = []
        states = []
        for k, pair in enumerate(self._split(state)):
            start = k * self.frequency_skip
            window = inputs[..., start : start + self.feature_size]
            output, pair = run(k, jnp.concatenate([window, below], axis=-1), pair)
            # With `returns_states`, `output` is a pair of the outputs and all new
            # states. The first leaf holds the outputs in either case.
            below = jax.tree.leaves(output)[0]
            outputs.append(output)
            states.append(pair)
        return jax.tree.map(lambda *parts: _joined(parts), *outputs), _joined(states)

    def _split(self, state: Array) -> list[LSTMStateTuple]:
        """Splits the state into the states of the windows."""
        parts = jnp.split(state, 2 * self.num_windows, axis=-1)
        return [LSTMStateTuple(*parts[k : k + 2]) for k in range(0, len(parts), 2)]


def _joined(parts: PyTree) -> Array:
    return jnp.concatenate(jax.tree.leaves(parts), axis=-1)


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
    of two diagonal products. Unless the LSTMs share their parameters, each LSTM has its
    own peepholes. `p_f` and `p_i` read `d_{k-1}` and `c_k`; `p_o` reads `d_k` and
    `c'_k`. With coupled gates, there is no f, because the forget gate is 1 minus the
    input gate. Blocks are independent of each other.

    Shapes, for `F = feature_size`, `H = num_units`, a total of `N` windows over all
    blocks, and `G = 4`, or `G = 3` with coupled gates: inputs `[batch, I]`; output
    `[batch, N * 2H]`, with `m'_k, n_k` of each window. The state is a named tuple of
    arrays `[batch, H]`. The name of a field contains the number of the window and the
    number of the block, with two digits each, e.g. `state_f00_b00_c` and
    `state_f00_b00_m`. With `state_is_tuple=False`, the state is one array
    `[batch, N * 2H]`. For block b, the rows of the two kernels `[F + 2H, G * H]` are
    split into the variables `W_f_<b>_<shard>` and `W_t_<b>_<shard>`, where the numbers
    b and shard have no leading zeros. The biases `B_f_<b>` and `B_t_<b>` are `[G * H]`.
    The peepholes `W_<gate>_diag_<lstm><of>_<b>` are `[H]`. In these names, `<gate>` is
    F, I or O; `<lstm>` is `freq` or `time`; `<of>` is `f` if the peephole multiplies d
    and `t` if the peephole multiplies c.

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
        """The windows of one block; in `bwd`, the highest window comes first."""
        if scope == "fwd":
            return super().windows(inputs, scope, starts)
        offset = self.backward_slice_offset
        inputs = jnp.pad(inputs, [(0, 0), (max(-offset, 0), max(offset, 0))])
        starts = [start + max(offset, 0) for start in starts]
        return super().windows(inputs, scope, starts)[::-1]
