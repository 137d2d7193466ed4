"""The time-frequency LSTM over windows of the inputs, and what windows are."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from jaxrnn import LSTMStateTuple, ParamSpec, Run

from .._base.arguments import check_equal, check_given
from .._base.typing import Array, DType, Initializer, Params, PyTree
from .._cells.base import scope_name
from .._cells.hyperparameters import CommonFields, set_counts, set_numbers
from .._cells.initializers import zeros
from .._cells.specs_cell import SpecsCell
from ._contrib_lstm import core_lstm, joined, shard_specs

_DIAGONALS = {"W_F_diag": "w_f_diag", "W_I_diag": "w_i_diag", "W_O_diag": "w_o_diag"}


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class TimeFreqLSTMCell(CommonFields, SpecsCell):
    """An LSTM that also runs along frequency, over windows of each step's inputs.

    Window k of a step is `x_k = x[k * frequency_skip :][: feature_size]`. With the
    state `(c_k, m_k)` of each window and `m'_{-1} = 0`:

        i, j, f, o = split([x_k, m_k, m'_{k-1}] W + B)
        c'_k = sigmoid(f + forget_bias + W_F_diag c_k) * c_k
               + sigmoid(i + W_I_diag c_k) * tanh(j)
        c'_k = clip(c'_k, -cell_clip, cell_clip)
        m'_k = sigmoid(o + W_O_diag c'_k) * tanh(c'_k)

    Shapes, for `F = feature_size`, `H = num_units` and `N = num_windows`: inputs
    `[batch, I]` with `(I - F) // frequency_skip + 1 == N`; output `[batch, N * H]`, all
    `m'_k`; state `[batch, N * 2H]`, the pairs `c_k, m_k`; `W` `[F + 2H, 4H]`, blocks i,
    j, f, o, shared by all windows and stored in rows as `W_0`, `W_1`, ...; `B` `[4H]`;
    with peepholes `W_F_diag`, `W_I_diag`, `W_O_diag` `[H]`.

    contrib declares the sizes of one window, `2H` and `H`, and returns those of `N`; so
    only one window runs in its `dynamic_rnn`. Here `num_windows` says how many there
    are, and the sizes are true. contrib does not read its `initializer`; here it draws
    `W` and the diagonals.

    Attributes:
        use_peepholes: Whether the gates read c through the three diagonals.
        cell_clip: The bound on c', or None.
        initializer: For `W` and the diagonals; None for Glorot uniform.
        num_unit_shards: The number of variables that hold `W`.
        feature_size: `F`, the size of a window.
        frequency_skip: The distance from one window to the next.
        num_windows: `N`, by default 1; not an argument of contrib's.

    Raises:
        TypeError: If a field is of the wrong kind.
        ValueError: If `feature_size` is not given, a number is out of its range, or
            `dtype` is not floating.

    Source: Sainath and Li, Interspeech 2016; `tf.contrib.rnn.TimeFreqLSTMCell`.
    """

    num_units: int
    use_peepholes: bool = False
    cell_clip: float | None = None
    initializer: Initializer | None = None
    num_unit_shards: int = 1
    forget_bias: float = 1.0
    feature_size: Any = None
    frequency_skip: int = 1
    reuse: Any = dataclasses.field(default=None, compare=False)
    _: dataclasses.KW_ONLY
    num_windows: int = 1
    name: str | None = None
    dtype: DType | None = None

    state_size = property(lambda self: 2 * self.num_units * self.num_windows)
    output_size = property(lambda self: self.num_units * self.num_windows)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self)
        set_counts(self, "num_windows")

    def check_depth(self, depth: int) -> None:
        """Raises ValueError unless inputs of that size have `num_windows` windows."""
        name, found = type(self).__name__, count_windows(depth, self)
        must = f"be that of the inputs, {found} for depth {depth}"
        check_equal(name, "num_windows", self.num_windows, found, must)

    core = property(lambda self: core_lstm(self, name=scope_name(self)))
    """The LSTM of one window, whose inputs are `[x_k, m'_{k-1}]`."""

    def param_specs(self, depth: int) -> dict[str, ParamSpec]:
        """All parameters; their shapes do not depend on the depth of the inputs."""
        units, rows = self.num_units, self.feature_size + 2 * self.num_units
        specs = shard_specs(self, "W", rows, 4 * units, self.num_unit_shards)
        specs["B"] = ParamSpec((4 * units,), zeros)
        ours = self.core.elementwise_specs()
        return specs | {k: ours[name] for k, name in _DIAGONALS.items() if name in ours}

    def _core_params(self, params: Params) -> Params:
        """Those of the LSTM, whose kernel has the rows of `m'_{k-1}` before `m_k`."""
        kernel = joined(params, "W", self.num_unit_shards)
        cuts = [self.feature_size, self.feature_size + self.num_units]
        x, m, m_below = jnp.split(kernel, cuts)
        staged = {"kernel": jnp.concatenate([x, m_below, m]), "bias": params["B"]}
        return staged | {_DIAGONALS[k]: params[k] for k in params.keys() & _DIAGONALS}

    def _step(self, params: Params, inputs: Array, state: Array) -> tuple[Array, Array]:
        core, params = self.core, self._core_params(params)
        run = lambda k, *args: core.apply(params, *args)
        return self._along_frequency(run, inputs, state)

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Window by window, each over all steps; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the LSTM of a window declines.
        """
        core, params, steps = self.core, self._core_params(params), run.steps

        def run_window(k: int, inputs: Array, state: PyTree) -> tuple[PyTree, PyTree]:
            own = steps
            if steps.restart_states is not None:
                own = steps.with_restart_states(self._split(steps.restart_states)[k])
            inner = run.of_inner(inputs, state, steps=own, keys=None)
            outputs, state = core.apply_sequence(params, inner)
            if steps.returns_states:
                outputs = outputs[0], _joined(outputs[1])
            return outputs, state

        return self._along_frequency(run_window, run.inputs, run.state)

    def _along_frequency(self, run: Callable, inputs: Array, state: Array) -> Any:
        """What `run(k, inputs, state)` returns for all windows k, `(outputs, states)`.

        Args:
            run: The LSTM of one window, for one step or all.
            inputs: `[..., depth]`.
            state: `[batch, N * 2H]`.
        """
        # Zeros of the inputs' kind: on a mesh they are divided as these are.
        below = jnp.zeros_like(inputs[..., :1])
        below = jnp.broadcast_to(below, (*inputs.shape[:-1], self.num_units))
        outputs, states = [], []
        for k, pair in enumerate(self._split(state)):
            start = k * self.frequency_skip
            window = inputs[..., start : start + self.feature_size]
            output, pair = run(k, jnp.concatenate([window, below], axis=-1), pair)
            # With `returns_states` an output is a pair with the states of all steps.
            below = jax.tree.leaves(output)[0]
            outputs.append(output)
            states.append(pair)
        return jax.tree.map(lambda *parts: _joined(parts), *outputs), _joined(states)

    def _split(self, state: Array) -> list[LSTMStateTuple]:
        """The states of the windows."""
        parts = jnp.split(state, 2 * self.num_windows, axis=-1)
        return [LSTMStateTuple(*parts[k : k + 2]) for k in range(0, len(parts), 2)]


def _joined(parts: PyTree) -> Array:
    return jnp.concatenate(jax.tree.leaves(parts), axis=-1)


def check_window(cell: Any) -> None:
    """Checks the fields of windows, the clip, and the number of shards.

    Raises:
        ValueError: If one is not given, or out of its range.
        TypeError: If one is not a number.
    """
    fields = "feature_size", "frequency_skip", "num_unit_shards"
    fix = "Windows have `feature_size` inputs, and are `frequency_skip` apart."
    for field in fields:
        check_given(type(cell).__name__, field, getattr(cell, field), fix)
    set_counts(cell, *fields)
    set_numbers(cell, "cell_clip", low=0)


def count_windows(size: int, cell: Any) -> int:
    """The number of windows of a cell that fit into `size` inputs."""
    return max(0, (size - cell.feature_size) // cell.frequency_skip + 1)
