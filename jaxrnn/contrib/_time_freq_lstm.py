"""The time-frequency LSTM, and helpers for windows over the inputs."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from jaxrnn import LSTMStateTuple, ParamSpec, Run, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, DType, Initializer, Params, PyTree, Specs

from ._contrib_lstm import core_lstm, joined, shard_specs

_DIAGONALS = {"W_F_diag": "w_f_diag", "W_I_diag": "w_i_diag", "W_O_diag": "w_o_diag"}


def required_count() -> Any:
    """A field for the size or the distance of windows, which has no usable default."""

    def check(name: str, value: Any) -> int:
        fix = "Windows have `feature_size` inputs, `frequency_skip` inputs apart."
        extend.check_value(value is not None, name, "be given", None, fix)
        return extend.as_count(name, value)

    return dataclasses.field(default=None, metadata={"check": check})


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
        reuse: Accepted for compatibility with TensorFlow; not used.
        num_windows: `N`, by default 1. contrib has no such argument.
        name: The name of the step in profiles; by default the name of the class.
        dtype: The required dtype of parameters and inputs; None for any dtype.

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

    def check_depth(self, depth: int) -> None:
        """Raises ValueError unless inputs of this depth have `num_windows` windows."""
        found = count_windows(depth, self)
        must = f"be {found} (the number of windows in inputs of depth {depth})"
        extend.check_value(
            self.num_windows == found, "num_windows", must, self.num_windows
        )

    core = property(lambda self: core_lstm(self, name=extend.scope_name(self)))
    """The LSTM of one window, whose inputs are `[x_k, m'_{k-1}]`."""

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters, whose shapes do not depend on `depth`."""
        units = self.num_units
        rows = self.feature_size + 2 * units
        specs = shard_specs(self, "W", rows, 4 * units, self.num_unit_shards)
        specs["B"] = ParamSpec((4 * units,), zeros)
        ours = self.core.elementwise_specs()
        return specs | {k: ours[name] for k, name in _DIAGONALS.items() if name in ours}

    def _core_params(self, params: Params) -> Params:
        """The parameters of `core`, whose kernel reads `m'_{k-1}` before `m_k`."""
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

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs each window over all steps; see `RNNCell.apply_sequence`.

        Raises:
            DeclinedError: If the LSTM of a window declines.
        """
        core = self.core
        core_params = self._core_params(params)
        steps = run.steps

        def run_window(k: int, inputs: Array, state: PyTree) -> tuple[PyTree, PyTree]:
            own = steps
            if steps.restart_states is not None:
                own = steps.with_restart_states(self._split(steps.restart_states)[k])
            inner = run.of_inner(inputs, state, steps=own, keys=None)
            outputs, state = core.apply_sequence(core_params, inner)
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
            # states.
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


def count_windows(size: int, cell: Any) -> int:
    """The number of windows of `cell` that fit into `size` inputs."""
    return max(0, (size - cell.feature_size) // cell.frequency_skip + 1)
