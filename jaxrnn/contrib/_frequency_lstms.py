"""LSTMs that run in time and, at each step, along the frequencies of the inputs."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from jaxrnn import LSTMStateTuple, ParamSpec, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Params, PyTree, Size, Specs

from .._base.trees import serializable
from ._lstms import (
    add_peephole,
    as_counts,
    clip_symmetric,
    core_lstm,
    joined,
    shard_specs,
)

_REQUIRED = "The argument is required."
_DIAGONALS = {"W_F_diag": "w_f_diag", "W_I_diag": "w_i_diag", "W_O_diag": "w_o_diag"}


@final
@fields.dataclass
class TimeFreqLSTMCell(extend.ComposedCell, extend.SpecsCell):
    """An LSTM that runs in time and, at each step, along windows of the inputs.

    The windows usually are bands of frequencies. Window k of a step is
    `x_k = x[k * frequency_skip :][: feature_size]`. The state of window k is
    `(c_k, m_k)`, and `m'_{-1} = 0`::

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

    Differences from contrib: contrib's cell declares the sizes of one window (`2H` and
    `H`), so it can run only with one window. Here, `num_windows` sets the number of
    windows. contrib ignores `initializer`, which here draws `W` and the peepholes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c through three diagonal kernels.
        cell_clip: The largest magnitude of c'. Default: no limit.
        initializer: Initializes `W` and the peepholes. Default: Glorot uniform.
        num_unit_shards: The number of variables that store `W`.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        feature_size: `F`, the size of a window; required.
        frequency_skip: The distance from one window to the next.
        num_windows: `N`. contrib does not have this argument.

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
    feature_size: int = fields.count(default=0, fix=_REQUIRED)
    frequency_skip: int = fields.count(default=1)
    reuse: object = fields.unused()
    _: dataclasses.KW_ONLY
    num_windows: int = fields.count(default=1)
    name: str | None = fields.name()
    dtype: DType | None = fields.dtype()

    state_size = property(lambda self: 2 * self.num_units * self.num_windows)
    output_size = property(lambda self: self.num_units * self.num_windows)

    maps_inputs = maps_outputs = False
    inner = property(lambda self: core_lstm(self, name=extend.scope_name(self)))
    """The LSTM of one window, whose inputs are `[x_k, m'_{k-1}]`."""

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters, whose shapes do not depend on `depth`.

        Raises:
            ValueError: If inputs of this depth do not have `num_windows` windows.
        """
        _check_windows(self, "num_windows", self.num_windows, depth)
        units = self.num_units
        rows = self.feature_size + 2 * units
        specs = shard_specs(self, "W", rows, 4 * units, self.num_unit_shards)
        specs["B"] = ParamSpec((4 * units,), zeros)
        ours = self.inner.elementwise_specs()
        return specs | {k: ours[name] for k, name in _DIAGONALS.items() if name in ours}

    def compose(self, run_next: Callable, params: Params, inputs: Array) -> Array:
        """The outputs of all windows; see `ComposedCell.compose`."""
        kernel = joined(params, "W", self.num_unit_shards)
        cuts = [self.feature_size, self.feature_size + self.num_units]
        x, m, m_below = jnp.split(kernel, cuts)
        window = {_DIAGONALS[k]: params[k] for k in params.keys() & _DIAGONALS}
        window["kernel"] = jnp.concatenate([x, m_below, m])
        window["bias"] = params["B"]
        # Create the zeros from the inputs, so that they have the sharding of the
        # inputs.
        below = jnp.zeros_like(inputs[..., :1])
        below = jnp.broadcast_to(below, (*inputs.shape[:-1], self.num_units))
        outputs = []
        for k in range(self.num_windows):
            start = k * self.frequency_skip
            x = inputs[..., start : start + self.feature_size]
            below = run_next(window, jnp.concatenate([x, below], axis=-1))
            outputs.append(below)
        return jnp.concatenate(outputs, axis=-1)

    def split_state(self, state: Array) -> list[PyTree]:
        """The state `(c_k, m_k)` of each window."""
        parts = iter(jnp.split(state, 2 * self.num_windows, axis=-1))
        return [LSTMStateTuple(*pair) for pair in zip(parts, parts, strict=True)]

    def join_states(self, states: list[PyTree]) -> Array:
        """Concatenates the states of all windows to one array."""
        return jnp.concatenate(jax.tree.leaves(states), axis=-1)


@fields.dataclass
class GridLSTM(extend.SpecsCell):
    """The equations of `GridLSTMCell`, for one or two directions over the windows.

    See `GridLSTMCell` for the fields and the errors of their checks.
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    share_time_frequency_weights: bool = fields.flag(False)
    cell_clip: float | None = fields.number(None, low=0)
    initializer: Initializer | None = fields.initializer()
    num_unit_shards: int = fields.count(default=1)
    forget_bias: float = fields.number(1.0)
    feature_size: int = fields.count(default=0, fix=_REQUIRED)
    frequency_skip: int = fields.count(default=0, fix=_REQUIRED)
    num_frequency_blocks: Sequence[int] = fields.checked(as_counts(1), default=())
    start_freqindex_list: Any = fields.checked(as_counts(0), default=None)
    end_freqindex_list: Any = fields.checked(as_counts(0), default=None)
    couple_input_forget_gates: bool = fields.flag(False)

    state_is_tuple = True
    scopes: ClassVar[tuple[str, ...]] = ()
    """The key of each direction's parameters; empty for a single direction."""
    num_windows = property(
        lambda self: sum(self.num_frequency_blocks) * max(1, len(self.scopes)),
        doc="The number of windows in all blocks and directions.",
    )
    # A window outputs m of both LSTMs, two vectors. The state has the same size: it
    # holds c and m of the LSTM in time.
    output_size = property(lambda self: 2 * self.num_units * self.num_windows)
    _gate_count = property(lambda self: 4 - self.couple_input_forget_gates)
    # The LSTMs that have parameters. With shared weights, only the LSTM in frequency.
    _kinds = property(
        lambda self: ("freq", "time")[: 2 - self.share_time_frequency_weights]
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = self.num_frequency_blocks
        must = "hold the number of windows of each block"
        extend.expect(blocks, "num_frequency_blocks", must, blocks)
        starts = self.start_freqindex_list or ()
        ends = self.end_freqindex_list or ()
        reads_all_inputs = len(blocks) == 1 and not starts and not ends
        must = f"have length {len(blocks)}, with one entry per block"
        fix = "If a single block reads all inputs, omit both lists."
        lists = {"end_freqindex_list": ends, "start_freqindex_list": starts}
        for name, given in lists.items():
            fits = reads_all_inputs or len(given) == len(blocks)
            extend.expect(fits, name, must, len(given), fix)
        for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
            self._check_block(block, end - start)

    def _check_block(self, block: int, size: int) -> None:
        name = f"num_frequency_blocks[{block}]"
        _check_windows(self, name, self.num_frequency_blocks[block], size)

    @property
    def state_tuple_type(self) -> type:
        """The class of the state, a named tuple with c and m of each window."""
        prefixes = tuple(f"{scope}_state" for scope in self.scopes) or ("state",)
        name = f"{type(self).__name__.removesuffix('Cell')}StateTuple"
        return state_type(name, prefixes, self.num_frequency_blocks)

    @property
    def state_size(self) -> Size:
        """The sizes of each window's c and m, or the sum if the state is one array."""
        if not self.state_is_tuple:
            return self.output_size
        return self.state_tuple_type(*[self.num_units] * 2 * self.num_windows)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters, whose shapes do not depend on `depth`."""
        if self.end_freqindex_list:
            last = max(self.end_freqindex_list)
            must = f"not exceed the depth of the inputs ({depth})"
            extend.expect(last <= depth, "end_freqindex_list", must, last)
        else:
            self._check_block(0, depth)
        specs = {}
        count = self._gate_count
        units = self.num_units
        rows = self.feature_size + 2 * units
        shards = self.num_unit_shards
        diagonal = ParamSpec((units,), self.initializer or extend.glorot_uniform)
        gates = "FIO"[4 - count :] if self.use_peepholes else ""
        blocks = map(str, range(len(self.num_frequency_blocks)))
        for block, kind in itertools.product(blocks, self._kinds):
            name = f"{kind[0]}_{block}"
            specs |= shard_specs(self, f"W_{name}", rows, count * units, shards)
            specs[f"B_{name}"] = ParamSpec((count * units,), zeros)
            for gate, of in itertools.product(gates, "ft"):
                specs[f"W_{gate}_diag_{kind}{of}_{block}"] = diagonal
        return dict.fromkeys(self.scopes, specs) or specs

    def step(self, params: Params, inputs: Array, state: Any) -> tuple[Array, PyTree]:
        """Runs both LSTMs over all windows; see `SpecsCell.step`."""
        join = functools.partial(jnp.concatenate, axis=-1)
        if not self.state_is_tuple:
            state = jnp.split(state, 2 * self.num_windows, axis=-1)
        leaves = iter(state)
        outputs = []
        new = []
        skip = self.frequency_skip
        blocks = list(enumerate(self.num_frequency_blocks))
        for scope, (block, count) in itertools.product(self.scopes or (None,), blocks):
            # The parameters, with the kernels and the biases of both LSTMs joined.
            own = params[scope] if scope else params
            names = [f"{kind[0]}_{block}" for kind in self._kinds]
            kernels = [joined(own, f"W_{n}", self.num_unit_shards) for n in names]
            biases = [own[f"B_{name}"] for name in names]
            product = own | {"kernel": join(kernels), "bias": join(biases)}
            first = self.start_freqindex_list[block] if self.start_freqindex_list else 0
            starts = range(first, first + count * skip, skip)
            below = None
            for x in self.windows(inputs, scope, starts):
                before = next(leaves), next(leaves)
                below = below or tuple(map(jnp.zeros_like, before))
                below, after = self._update(product, block, x, below, before)
                outputs += [after[1], below[1]]
                new += after
        new = self.state_tuple_type(*new) if self.state_is_tuple else join(new)
        return join(outputs), new

    def windows(self, inputs: Array, scope: str | None, starts: Any) -> list[Array]:
        """Cuts the windows, each `[batch, feature_size]`, of one block."""
        return [inputs[:, start : start + self.feature_size] for start in starts]

    def _update(
        self, params: Params, block: int, x: Array, below: tuple, before: tuple
    ) -> tuple[tuple, tuple]:
        """Runs both LSTMs on a window; returns `((c, m) in frequency, (c, m) in time)`.

        Args:
            params: The parameters, with the joined kernels and biases of the block.
            block: The number of the block.
            x: The window.
            below: `(c, m)` in frequency from the window below.
            before: `(c, m)` in time from the previous step.
        """
        wide = jnp.promote_types(before[0].dtype, before[1].dtype)
        z = extend.affine(params, (x, before[1], below[1]), wide)
        shared = self.share_time_frequency_weights
        products = (z, z) if shared else jnp.split(z, 2, axis=-1)
        # With shared weights, both LSTMs use the peepholes of the LSTM in frequency.
        kinds = self._kinds[0], self._kinds[-1]
        old = below[0], before[0]

        def peep(gate: str, kind: str, z: Array, both: Sequence) -> Array:
            for of, c in zip("ft", both, strict=True):
                z = add_peephole(params, f"W_{gate}_diag_{kind}{of}_{block}", z, c)
            return z

        new = []
        exposed = []
        for kind, z, c in zip(kinds, products, old, strict=True):
            i, j, *f, o = jnp.split(z, self._gate_count, axis=-1)
            i = jax.nn.sigmoid(peep("I", kind, i, old))
            if self.couple_input_forget_gates:
                f = 1 - i
            else:
                f = jax.nn.sigmoid(peep("F", kind, f[0] + self.forget_bias, old))
            new.append(clip_symmetric(f * c + i * jnp.tanh(j), self.cell_clip))
            exposed.append(o)
        m = []
        for kind, o, c in zip(kinds, exposed, new, strict=True):
            o = jax.nn.sigmoid(peep("O", kind, o, new))
            m.append((o * jnp.tanh(c)).astype(before[1].dtype))
        return (new[0], m[0]), (new[1], m[1])


@fields.dataclass
class GridLSTMCell(GridLSTM):
    """Two LSTMs over windows of each step's inputs: one in time, one in frequency.

    Window k of a block is `x_k = x[start + k * frequency_skip :][: feature_size]`. The
    state of window k is `(c_k, m_k)` in time and `(d_k, n_k)` in frequency, where
    `d_{-1} = n_{-1} = 0`. Both LSTMs read `u_k = [x_k, m_k, n_{k-1}]`::

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

    Differences from contrib: with `state_is_tuple=False`, all blocks of contrib's cell
    read the states of the first block, but here each block reads its own states.
    contrib ignores `initializer`, which here draws the kernels and peepholes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c and d through diagonal kernels.
        share_time_frequency_weights: Whether the LSTMs in time and in frequency share
            their parameters.
        cell_clip: The largest magnitude of c and d. Default: no limit.
        initializer: Initializes kernels and peepholes. Default: Glorot uniform.
        num_unit_shards: The number of variables that store each kernel.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        feature_size: `F`, the size of a window; required.
        frequency_skip: The distance from one window to the next; required.
        num_frequency_blocks: A list with the number of windows in each block; required.
        start_freqindex_list: The index of the first input of each block. Omit this list
            if one block reads all inputs.
        end_freqindex_list: The index after the last input of each block. Omit this list
            if one block reads all inputs.
        couple_input_forget_gates: Whether the forget gate is 1 minus the input gate.
        state_is_tuple: Whether the state is a named tuple. If False, the state is one
            array.

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

    contrib ignores `initializer`, which here draws the kernels and peepholes.

    Attributes:
        num_units: `H`, at least 0.
        use_peepholes: Whether the gates read c and d through diagonal kernels.
        share_time_frequency_weights: Whether the LSTMs in time and in frequency share
            their parameters.
        cell_clip: The largest magnitude of c and d. Default: no limit.
        initializer: Initializes kernels and peepholes. Default: Glorot uniform.
        num_unit_shards: The number of variables that store each kernel.
        forget_bias: A constant that each step adds to f, in addition to the bias.
        feature_size: `F`, the size of a window; required.
        frequency_skip: The distance from one window to the next; required.
        num_frequency_blocks: A list with the number of windows in each block; required.
        start_freqindex_list: The index of the first input of each block. Omit this list
            if one block reads all inputs.
        end_freqindex_list: The index after the last input of each block. Omit this list
            if one block reads all inputs.
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
        """Cuts the windows of one block. In `bwd`, the highest window comes first."""
        if scope == "fwd":
            return super().windows(inputs, scope, starts)
        offset = self.backward_slice_offset
        inputs = jnp.pad(inputs, [(0, 0), (max(-offset, 0), max(offset, 0))])
        starts = [start + max(offset, 0) for start in starts]
        return super().windows(inputs, scope, starts)[::-1]


def _check_windows(cell: Any, name: str, count: int, size: int) -> None:
    """Raises ValueError unless `count` windows of `cell` fit into `size` inputs."""
    width = cell.feature_size
    must = f"not exceed the number of inputs ({size})"
    extend.expect(width <= size, "feature_size", must, width)
    fitting = (size - width) // cell.frequency_skip + 1
    must = f"be {fitting}, the number of windows that fit inputs of size {size}"
    extend.expect(count == fitting, name, must, count)


@functools.cache
def state_type(name: str, prefixes: tuple[str, ...], blocks: tuple[int, ...]) -> type:
    """Creates the named tuple class of a state, once for equal arguments.

    Args:
        name: The name of the class.
        prefixes: The prefix of the field names in each direction.
        blocks: The number of windows in each block.

    Returns:
        A named tuple class with the fields `<prefix>_f<window>_b<block>_c` and `..._m`.
    """
    fields = [
        f"{prefix}_f{window:02}_b{block:02}_{leaf}"
        for prefix in prefixes
        for block, count in enumerate(blocks)
        for window in range(count)
        for leaf in "cm"
    ]
    made: Any = collections.namedtuple(name, fields)
    # Without `__reduce__`, pickle would look for a class with this name in this module.
    arguments = name, prefixes, blocks
    made.__reduce__ = lambda self: (_remake, (arguments, tuple(self)))
    return serializable(made, "_".join([name, *prefixes, *map(str, blocks)]))


def _remake(arguments: tuple, leaves: tuple) -> tuple:
    return state_type(*arguments)(*leaves)
