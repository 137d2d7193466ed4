"""Grid LSTMs: two LSTMs over windows of the inputs, one in time, one in frequency."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp

from .._base.arguments import INT32_MAX, as_count
from .._base.errors import describe
from .._base.math import affine, clip_symmetric, widest_dtype
from .._base.trees import merge_dicts
from .._base.typing import (
    Array,
    DType,
    Initializer,
    Key,
    Params,
    PyTree,
    Size,
)
from .._cells.base import scope_name
from .._cells.hyperparameters import set_common_fields, set_field
from .._cells.initializers import ParamSpec, glorot_uniform, zeros
from .._cells.specs_cell import SpecsCell
from .._time.sequence import DeclinedError, scan_steps
from .._time.steps import Steps
from ._grid_states import state_type
from ._shards import joined, shard_specs
from ._windows import check_window, count_windows


class Run(NamedTuple):
    """One run along frequency.

    Attributes:
        scope: The key of its parameters; None for the top.
        block: The number of its block.
        starts: The first input of each window, in the order of the run.
    """

    scope: str | None
    block: int
    starts: list[int]


class GridLSTM(SpecsCell):
    """What both classes share; each declares its fields in contrib's order."""

    num_units: int
    use_peepholes: bool
    share_time_frequency_weights: bool
    cell_clip: float | None
    initializer: Initializer | None
    num_unit_shards: int
    forget_bias: float
    feature_size: Any
    frequency_skip: Any
    num_frequency_blocks: Any
    start_freqindex_list: Any
    end_freqindex_list: Any
    couple_input_forget_gates: bool

    state_is_tuple = True
    scopes: tuple[str | None, ...] = (None,)

    def __post_init__(self) -> None:
        set_common_fields(self)
        check_window(self)
        where = type(self).__name__
        _set_counts(self, "num_frequency_blocks", least=1)
        if not self.num_frequency_blocks:
            raise ValueError(
                f"{where}: `num_frequency_blocks` must be a list of the number of "
                f"windows of each block, got {self.num_frequency_blocks!r}."
            )
        self._check_blocks()

    def _check_blocks(self) -> None:
        where, blocks = type(self).__name__, self.num_frequency_blocks
        for field in ("start_freqindex_list", "end_freqindex_list"):
            if getattr(self, field) is not None:
                _set_counts(self, field)
        starts, ends = self.start_freqindex_list, self.end_freqindex_list
        if not starts:
            if len(blocks) != 1:
                raise ValueError(
                    f"{where}: `num_frequency_blocks` must have one entry, as there "
                    f"is no `start_freqindex_list`, got {len(blocks)}."
                )
            if ends:
                raise ValueError(
                    f"{where}: `end_freqindex_list` must be None, as there is no "
                    f"`start_freqindex_list`, got {ends}. Give both or neither."
                )
            return
        if not len(blocks) == len(starts) == len(ends or ()):
            raise ValueError(
                f"{where}: `num_frequency_blocks`, `start_freqindex_list` and "
                "`end_freqindex_list` must have an entry for each block, got "
                f"{len(blocks)}, {len(starts)} and {len(ends or ())}."
            )
        for block, size in enumerate(e - s for s, e in zip(starts, ends, strict=True)):
            self._check_count(block, size)

    def _check_count(self, block: int, size: int) -> None:
        """Raises unless `size` inputs hold as many windows as the block has."""
        found = count_windows(size, self.feature_size, self.frequency_skip)
        if found != self.num_frequency_blocks[block]:
            raise ValueError(
                f"{type(self).__name__}: `num_frequency_blocks[{block}]` must be "
                f"{found}, the number of windows of {self.feature_size} in {size} "
                f"inputs, {self.frequency_skip} apart, got "
                f"{self.num_frequency_blocks[block]}."
            )

    @property
    def num_windows(self) -> int:
        """The number of windows, of all blocks and directions."""
        return sum(self.num_frequency_blocks) * len(self.scopes)

    @property
    def state_tuple_type(self) -> type:
        """The named tuple of the state."""
        prefixes = [f"{scope}_state" if scope else "state" for scope in self.scopes]
        name = f"{type(self).__name__.removesuffix('Cell')}StateTuple"
        return state_type(name, tuple(prefixes), self.num_frequency_blocks)

    @property
    def state_size(self) -> Size:
        """The size of c and of m of each window."""
        if not self.state_is_tuple:
            return 2 * self.num_units * self.num_windows
        return self.state_tuple_type(*[self.num_units] * 2 * self.num_windows)

    @property
    def output_size(self) -> int:
        """Two outputs of each window, one of each LSTM."""
        return 2 * self.num_units * self.num_windows

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters; their shapes do not depend on the depth of the inputs."""
        del depth
        specs: dict[str, Any] = {}
        for scope in self.scopes:
            for block in range(len(self.num_frequency_blocks)):
                found = self._block_specs(block)
                specs = merge_dicts(specs, {scope: found} if scope else found)
        return specs

    def _block_specs(self, block: int) -> dict[str, Any]:
        units, kernel = self.num_units, self.initializer or glorot_uniform
        rows, columns = self.feature_size + 2 * units, self._gate_count * units
        where, shards = type(self).__name__, self.num_unit_shards
        specs: dict[str, Any] = {}
        for kind in self._kinds:
            name = f"{kind[0]}_{block}"
            specs |= shard_specs(where, f"W_{name}", rows, columns, shards, kernel)
            specs[f"B_{name}"] = ParamSpec((columns,), zeros)
        if not self.use_peepholes:
            return specs
        gates = "IO" if self.couple_input_forget_gates else "FIO"
        diagonal = ParamSpec((units,), kernel)
        return specs | {
            f"W_{gate}_diag_{kind}{of}_{block}": diagonal
            for kind in self._kinds
            for gate in gates
            for of in "ft"
        }

    @property
    def _gate_count(self) -> int:
        return 3 if self.couple_input_forget_gates else 4

    @property
    def _kinds(self) -> tuple[str, ...]:
        """The LSTMs that have parameters; with shared ones only that in frequency."""
        return ("freq",) if self.share_time_frequency_weights else ("freq", "time")

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. No random numbers are drawn.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require.
            TypeError: If a dtype, or the kind of state, is not what they require.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        return self._step(self._with_products(params), inputs, state)

    def apply_sequence(
        self,
        params: Params,
        inputs: Array,
        state: PyTree,
        steps: Steps,
        keys: Callable | None = None,
        implementation: Any = None,
    ) -> tuple[PyTree, PyTree]:
        """Step by step, with kernels joined once; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If an implementation is named, none of which can run this.
        """
        if implementation is not None:
            raise DeclinedError("an update reads c of the window below")
        params = self._with_products(params)
        step = lambda t, inputs, state: self._step(params, inputs, state)
        return scan_steps(step, inputs, state, steps)

    def _step(
        self, params: Params, inputs: Array, state: PyTree
    ) -> tuple[Array, PyTree]:
        """One step, with the parameters that `_with_products` returns."""
        with jax.named_scope(scope_name(self)):
            if self.state_is_tuple:
                leaves = iter(state)
            else:
                leaves = iter(jnp.split(state, 2 * self.num_windows, axis=-1))
            outputs, new_leaves = [], []
            for run in self.runs():
                found = params[run.scope] if run.scope else params
                windows = self.windows(inputs, run)
                states = [(next(leaves), next(leaves)) for _ in windows]
                more = self._along_frequency(found, run.block, windows, states)
                outputs += more[0]
                new_leaves += more[1]
            output = jnp.concatenate(outputs, axis=-1)
            if self.state_is_tuple:
                return output, self.state_tuple_type(*new_leaves)
            return output, jnp.concatenate(new_leaves, axis=-1)

    def _with_products(self, params: Params) -> Params:
        """The parameters, with one kernel and bias for both LSTMs of each block."""
        scopes = [scope for scope in self.scopes if scope is not None]
        if not scopes:
            return self._block_products(params)
        return {scope: self._block_products(params[scope]) for scope in scopes}

    def _block_products(self, params: Params) -> Params:
        both = lambda parts: jnp.concatenate(list(parts), axis=-1)
        products = {
            f"product_{block}": {
                "kernel": both(
                    joined(params, f"W_{kind[0]}_{block}") for kind in self._kinds
                ),
                "bias": both(params[f"B_{kind[0]}_{block}"] for kind in self._kinds),
            }
            for block in range(len(self.num_frequency_blocks))
        }
        return params | products

    def runs(self) -> list[Run]:
        """The runs along frequency, in the order of states and outputs."""
        firsts = self.start_freqindex_list or (0,)
        return [
            Run(scope, block, [first + k * self.frequency_skip for k in range(count)])
            for scope in self.scopes
            for block, (first, count) in enumerate(
                zip(firsts, self.num_frequency_blocks, strict=True)
            )
        ]

    def windows(self, inputs: Array, run: Run) -> list[Array]:
        """The windows of a run, `[batch, feature_size]` each."""
        return [inputs[:, start : start + self.feature_size] for start in run.starts]

    def _along_frequency(
        self, params: Params, block: int, windows: list[Array], states: list
    ) -> tuple[list[Array], list[Array]]:
        """`(outputs, new_leaves)` of all windows of a run."""
        update = functools.partial(self._update, params, block)
        outputs, new_leaves = [], []
        below = tuple(jnp.zeros_like(leaf) for leaf in states[0])
        for x, state in zip(windows, states, strict=True):
            operands, dtype = (x, state[1], below[1]), widest_dtype((state, below))
            z = affine(params[f"product_{block}"], operands, dtype)
            below, state = update(z, below, state)
            outputs += [state[1], below[1]]
            new_leaves += state
        return outputs, new_leaves

    def _update(
        self, params: Params, block: int, z: Array, below: tuple, before: tuple
    ) -> tuple[tuple, tuple]:
        """The new `(c, m)` in frequency, and in time.

        Args:
            params: Those of the run.
            block: The number of its block.
            z: The products of both LSTMs, or the one that they share.
            below: `(c, m)` of the window below, in frequency.
            before: `(c, m)` of the step before, in time.
        """
        (c_freq, _), (c_time, m) = below, before
        peep = functools.partial(self._peep, params, block)
        shared = self.share_time_frequency_weights
        z_freq, z_time = (z, z) if shared else jnp.split(z, 2, axis=-1)
        new_freq = self._new_c(peep, "freq", z_freq, c_freq, (c_freq, c_time))
        new_time = self._new_c(peep, "time", z_time, c_time, (c_freq, c_time))
        pairs = []
        for kind, z_kind, c in (
            ("freq", z_freq, new_freq),
            ("time", z_time, new_time),
        ):
            o = peep("O", kind, z_kind[:, -self.num_units :], (new_freq, new_time))
            pairs.append((c, (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(m.dtype)))
        return pairs[0], pairs[1]

    def _new_c(self, peep: Any, kind: str, z: Array, c: Array, both: tuple) -> Array:
        i, j, *rest = jnp.split(z, self._gate_count, axis=-1)
        i = jax.nn.sigmoid(peep("I", kind, i, both))
        if self.couple_input_forget_gates:
            f = 1 - i
        else:
            f = jax.nn.sigmoid(peep("F", kind, rest[0] + self.forget_bias, both))
        c = f * c + i * jnp.tanh(j)
        return clip_symmetric(c, self.cell_clip)

    def _peep(
        self, params: Params, block: int, gate: str, kind: str, z: Array, both: tuple
    ) -> Array:
        """`z` plus what the gate reads of c, in frequency and in time."""
        if not self.use_peepholes:
            return z
        kind = "freq" if self.share_time_frequency_weights else kind
        for of, c in zip("ft", both, strict=True):
            diagonal = params[f"W_{gate}_diag_{kind}{of}_{block}"]
            z = z + diagonal.astype(c.dtype)[None, :] * c
        return z

    def check_depth(self, depth: int) -> None:
        """Raises ValueError unless the windows of the cell are those of the inputs."""
        if not self.start_freqindex_list:
            self._check_count(0, depth)
        elif max(self.end_freqindex_list) > depth:
            raise ValueError(
                f"{type(self).__name__}: `end_freqindex_list` must not exceed the "
                f"depth of the inputs, {depth}, got {self.end_freqindex_list}."
            )


def _set_counts(cell: GridLSTM, field: str, least: int = 0) -> None:
    """Checks a list of integers, and stores it as a tuple."""
    where, value = type(cell).__name__, getattr(cell, field)
    if not isinstance(value, list | tuple | None):
        raise TypeError(
            f"{where}: `{field}` must be a list with an entry for each block, got "
            f"{describe(value)}. With one block it is a list of one number."
        )
    counts = [as_count(where, field, n, least, fix="") for n in value or ()]
    set_field(cell, **{field: tuple(counts)})


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class GridLSTMCell(GridLSTM):
    """Two LSTMs over windows of each step's inputs: one in time, one in frequency.

    Window k of a block is `x_k = x[start + k * frequency_skip :][: feature_size]`. With
    `(c_k, m_k)`, the state in time of each window, and `(d_k, n_k)`, those in
    frequency, `d_{-1} = n_{-1} = 0`, both LSTMs read `u_k = [x_k, m_k, n_{k-1}]`:

        i, j, f, o = split(u_k W_f + B_f)
        d_k  = sigmoid(f + forget_bias + p_f) * d_{k-1} + sigmoid(i + p_i) * tanh(j)
        i, j, f, o = split(u_k W_t + B_t)
        c'_k = sigmoid(f + forget_bias + p_f) * c_k + sigmoid(i + p_i) * tanh(j)
        n_k  = sigmoid(o + p_o) * tanh(d_k)          (o of the first product)
        m'_k = sigmoid(o + p_o) * tanh(c'_k)         (o of the second)

    New c and d are clipped to `[-cell_clip, cell_clip]`. The peepholes p are sums of
    two diagonals, each LSTM with its own: `p_f` and `p_i` read `d_{k-1}` and `c_k`,
    `p_o` reads `d_k` and `c'_k`. Coupled gates have no f: the forget gate is 1 minus
    the input gate. Blocks are independent of each other.

    Shapes, for `F = feature_size`, `H = num_units`, `N` windows in all blocks and `G`
    gates, 4, or 3 if they are coupled: inputs `[batch, I]`; output `[batch, N * 2H]`,
    `m'_k, n_k` of each window; state a named tuple of `[batch, H]`,
    `state_f<window>_b<block>_c` and `..._m`, or one array `[batch, N * 2H]`. For block
    b: `W_f_<b>_<shard>` and `W_t_<b>_<shard>` `[F + 2H, G * H]` together, `B_f_<b>` and
    `B_t_<b>` `[G * H]`; `W_<gate>_diag_<lstm><of>_<b>` `[H]` for the gates F, I, O, the
    LSTMs freq and time, and `f` or `t` for what they multiply: d or c.

    With `state_is_tuple=False` contrib reads the states of the first block in all
    blocks; here each block reads its own. contrib does not read its `initializer`; here
    it draws kernels and diagonals.

    Attributes:
        num_units: `H`.
        use_peepholes: Whether the gates read c and d.
        share_time_frequency_weights: Whether the LSTM in time has the parameters of
            that in frequency.
        cell_clip: The bound on c and d, or None.
        initializer: For kernels and diagonals; None for Glorot uniform.
        num_unit_shards: The number of variables that hold a kernel.
        forget_bias: Added to f at each step; not part of the stored bias.
        feature_size: `F`, the size of a window; required.
        frequency_skip: The distance from one window to the next; required.
        num_frequency_blocks: A list of the number of windows of each block; required.
        start_freqindex_list: The first input of each block; None for one block of all
            inputs.
        end_freqindex_list: The input before which each block ends.
        couple_input_forget_gates: Whether the forget gate is 1 minus the input gate.
        state_is_tuple: False for a state that is one array.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If a required field is missing, the lists do not fit each other or
            the windows, a number is out of its range, or `dtype` is not floating.

    Source: arXiv:1507.01526; Sainath and Li, Interspeech 2016;
    `tf.contrib.rnn.GridLSTMCell`.
    """

    num_units: int
    use_peepholes: bool = False
    share_time_frequency_weights: bool = False
    cell_clip: float | None = None
    initializer: Initializer | None = None
    num_unit_shards: int = 1
    forget_bias: float = 1.0
    feature_size: Any = None
    frequency_skip: Any = None
    num_frequency_blocks: Any = None
    start_freqindex_list: Any = None
    end_freqindex_list: Any = None
    couple_input_forget_gates: bool = False
    state_is_tuple: bool = True
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class BidirectionalGridLSTMCell(GridLSTM):
    """Two `GridLSTMCell`s, one from the lowest window up, one from the highest down.

    Each direction has parameters of its own, those of a `GridLSTMCell` under `fwd` and
    `bwd`. In time both run forward, so the cell needs no later step.

    Shapes, as for `GridLSTMCell`: output `[batch, 2 * N * 2H]`, first that of `fwd`,
    then that of `bwd`, each in the order in which it runs; state a named tuple of
    `[batch, H]`, `fwd_state_f<window>_b<block>_c` and so on. Windows of `bwd` are
    counted from the highest.

    contrib does not read its `initializer`; here it draws kernels and diagonals.

    Attributes:
        num_units: See `GridLSTMCell`, as for all others.
        use_peepholes: Whether the gates read c and d.
        share_time_frequency_weights: Whether the LSTM in time has the parameters of
            that in frequency.
        cell_clip: The bound on c and d, or None.
        initializer: For kernels and diagonals; None for Glorot uniform.
        num_unit_shards: The number of variables that hold a kernel.
        forget_bias: Added to f at each step; not part of the stored bias.
        feature_size: The size of a window; required.
        frequency_skip: The distance from one window to the next; required.
        num_frequency_blocks: A list of the number of windows of each block; required.
        start_freqindex_list: The first input of each block.
        end_freqindex_list: The input before which each block ends.
        couple_input_forget_gates: Whether the forget gate is 1 minus the input gate.
        backward_slice_offset: How many inputs higher the windows of `bwd` begin, lower
            if it is negative; outside of the inputs they read zeros.
        reuse: Accepted for compatibility with TensorFlow; not used.
        name: The name of the step in profiles; by default that of the class.
        dtype: The required dtype of parameters and inputs; None for any.

    Raises:
        TypeError: As `GridLSTMCell`.
        ValueError: As `GridLSTMCell`.

    Source: Sainath and Li, Interspeech 2016;
    `tf.contrib.rnn.BidirectionalGridLSTMCell`.
    """

    num_units: int
    use_peepholes: bool = False
    share_time_frequency_weights: bool = False
    cell_clip: float | None = None
    initializer: Initializer | None = None
    num_unit_shards: int = 1
    forget_bias: float = 1.0
    feature_size: Any = None
    frequency_skip: Any = None
    num_frequency_blocks: Any = None
    start_freqindex_list: Any = None
    end_freqindex_list: Any = None
    couple_input_forget_gates: bool = False
    backward_slice_offset: int = 0
    reuse: Any = dataclasses.field(default=None, compare=False)
    name: str | None = None
    dtype: DType | None = None

    scopes = ("fwd", "bwd")

    def __post_init__(self) -> None:
        super().__post_init__()
        where, name = type(self).__name__, "backward_slice_offset"
        offset = as_count(where, name, getattr(self, name), -INT32_MAX, fix="")
        set_field(self, backward_slice_offset=offset)

    def windows(self, inputs: Array, run: Run) -> list[Array]:
        """The windows of a run, highest first in the backward direction."""
        if run.scope == "fwd":
            return super().windows(inputs, run)
        offset = self.backward_slice_offset
        inputs = jnp.pad(inputs, [(0, 0), (max(-offset, 0), max(offset, 0))])
        starts = [start + max(offset, 0) for start in run.starts]
        return super().windows(inputs, run._replace(starts=starts))[::-1]
