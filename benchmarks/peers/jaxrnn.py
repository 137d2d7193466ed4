"""jaxrnn: its drivers and implementations, time-major."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn.memory import Keep, Offload, Recompute

from ..built import LeftOutError, Variants
from ..cases import HEADS, Case
from ..data import Data, Layers
from . import _jax, patterns
from .gated_delta import GatedDeltaCell

PyTree = Any
Run = Callable[..., tuple[PyTree, PyTree]]

USES = ("jax", "jaxlib")
HAS_RESETS = HAS_PATTERNS = True

# Arguments of `dynamic_rnn` by `Case.run`, which may also be "raw_rnn".
ARGUMENTS: dict[str, dict[str, Any]] = {
    "": {},
    "custom": {},
    "xla": {"implementation": "xla"},
    "native": {"implementation": "native"},
    "batched": {},
    "Keep()": {"swap_memory": Keep()},
    "Recompute()": {"swap_memory": Recompute()},
    "Offload(Keep())": {"swap_memory": Offload(Keep())},
    "Offload(Recompute(64))": {"swap_memory": Offload(Recompute(64))},
}

# Cells that no other library has. So they draw their own parameters.
OWN = {
    "mingru": jaxrnn.MinGRUCell,
    "lru": jaxrnn.LRUCell,
    "rglru": jaxrnn.RGLRUCell,
    "mlstm": functools.partial(jaxrnn.MLSTMCell, num_heads=HEADS),
    "gated_delta": functools.partial(GatedDeltaCell, num_heads=HEADS),
}
CELLS = {
    "lstm": jaxrnn.LSTMCell,
    "lstm2": lambda n: jaxrnn.MultiRNNCell([jaxrnn.LSTMCell(n) for _ in range(2)]),
    "peephole": functools.partial(jaxrnn.LSTMCell, use_peepholes=True),
    "gru": jaxrnn.GRUCell,
    "gru_after": jaxrnn.CudnnCompatibleGRUCell,
}
STATES = {"mlstm": jaxrnn.MLSTMState, "lru": jaxrnn.ComplexState}


def build(case: Case, data: Data) -> Variants:
    """The case's driver, called as a user would call it."""
    if case.run == "batched" and case.pattern != "mapped":
        raise LeftOutError("only for models that are mapped over rows")
    if case.run == "raw_rnn":
        net = make_net(case, data, functools.partial(_raw, make_cell(case)))
    elif case.pattern == "bidirectional":
        net = make_net(case, data, functools.partial(_both, case, make_cell(case)))
    else:
        run = functools.partial(_dynamic, case, make_cell(case))
        if case.run != "batched":
            run = patterns.around(case, run)
        net = make_net(case, data, run)
    return _jax.build(case, data, {"": net})


def _dynamic(
    case: Case,
    cell: jaxrnn.RNNCell,
    params: PyTree,
    inputs: jax.Array,
    state: PyTree,
    lengths: Any,
) -> tuple[PyTree, PyTree]:
    if case.run == "native" and not jaxrnn.native_status().startswith("native"):
        raise LeftOutError(jaxrnn.native_status())
    arguments = ARGUMENTS[case.run] | {"initial_state": state}
    arguments["time_major"] = case.pattern != "mapped"
    arguments["resets" if case.lengths == "resets" else "sequence_length"] = lengths
    return jaxrnn.dynamic_rnn(cell.bind(params), inputs, **arguments)


def _both(
    case: Case,
    cell: jaxrnn.RNNCell,
    params: PyTree,
    inputs: jax.Array,
    states: PyTree,
    lengths: jax.Array,
) -> tuple[PyTree, PyTree]:
    """The outputs of both directions, concatenated, and their final states."""
    cells = (cell.bind(params[name]) for name in ("cell_0", "cell_1"))
    arguments = ARGUMENTS[case.run] | {"time_major": True}
    outputs, final = jaxrnn.bidirectional_dynamic_rnn(
        *cells, inputs, lengths, *states, **arguments
    )
    return jnp.concatenate(outputs, axis=-1), final


def _raw(
    cell: jaxrnn.RNNCell, params: PyTree, inputs: jax.Array, state: PyTree, lengths: Any
) -> tuple[PyTree, PyTree]:
    """`raw_rnn` with inputs from a TensorArray, as in TensorFlow's documentation."""
    time, batch, _ = inputs.shape
    ends = jnp.full(batch, time, jnp.int32) if lengths is None else lengths
    steps = jaxrnn.TensorArray(inputs.dtype, time).unstack(inputs)

    def loop_fn(t, output, cell_state, _):
        next_state = state if output is None else cell_state
        return t >= ends, steps.read(jnp.minimum(t, time - 1)), next_state, output, None

    emitted, final, _ = jaxrnn.raw_rnn(cell.bind(params), loop_fn, max_time=time)
    return emitted.stack(), final


def make_net(case: Case, data: Data, run: Run) -> _jax.Net:
    """A network with a single cell of one or two layers; time-major.

    `run(params, inputs, state, lengths)` returns the cell's outputs and final state.
    """
    stacked = len(data.weights) > 1

    def apply(params, inputs, state, lengths):
        state = tuple(state) if stacked else state[0]
        outputs, final = run(params, inputs, state, lengths)
        return outputs, list(final) if stacked else [final]

    to_params = functools.partial(_to_params, case)
    if case.cell in OWN:  # By the paths of the parameters.
        row = jnp.zeros((case.batch, case.depth), jnp.float32)
        drawn = make_cell(case).init(jax.random.key(0), row)
        leaves, tree = jax.tree.flatten_with_path(drawn)
        drawn = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        data = dataclasses.replace(data, weights=[drawn])
        to_params = lambda layers: tree.unflatten([layers[0][name] for name in drawn])
    return _jax.make_net(data, apply, to_params, _layer_state(case))


def bound(case: Case, weights: dict[str, np.ndarray]) -> jaxrnn.BoundCell:
    """The cell of a layer with these weights, for `jaxrnn.convert`."""
    layer = dataclasses.replace(case, cell=case.layer_cell, run="")
    return make_cell(layer).bind(_to_params(layer, [weights]))


def make_cell(case: Case) -> jaxrnn.RNNCell:
    """The cell of a case."""
    cell = (OWN | CELLS)[case.cell](case.units)
    if case.run == "custom":  # Hide the loops of the cell.
        step = cell.apply, cell.state_size, cell.output_size, cell.init
        return jaxrnn.FunctionCell(*step)
    return cell


def _layer_state(case: Case) -> tuple[Any, Any]:
    """Functions that build and read a layer's state."""
    if case.state_names == ("h",):
        return _jax.carry("h")
    kind = STATES.get(case.cell, jaxrnn.LSTMStateTuple)
    return lambda state: kind(**state), lambda state: state._asdict()


def _to_params(case: Case, layers: Layers) -> PyTree:
    """The weights of all layers as the nested dict that the cell expects."""
    to_layer = _gru_after if case.cell == "gru_after" else _nested
    if len(layers) == 1:
        return to_layer(layers[0])
    return {f"cell_{number}": to_layer(layer) for number, layer in enumerate(layers)}


def _nested(weights: dict[str, np.ndarray]) -> PyTree:
    params: dict[str, Any] = {}
    for path, weight in weights.items():
        folder, _, name = path.rpartition("/")
        (params.setdefault(folder, {}) if folder else params)[name] = weight
    return params


def _gru_after(weights: dict[str, np.ndarray]) -> PyTree:
    """The candidate has a second bias, which is zero and not in the data."""
    units = len(weights["bias"]) // 3
    depth = len(weights["kernel"]) - units
    gates, candidate = jnp.split(weights["kernel"], [2 * units], axis=1)
    gate_bias, bias = jnp.split(weights["bias"], [2 * units])
    of_inputs, of_state = jnp.split(candidate, [depth])
    return {
        "gates": {"kernel": gates, "bias": gate_bias},
        "candidate": {
            "input_projection": {"kernel": of_inputs, "bias": bias},
            "hidden_projection": {
                "kernel": of_state,
                "bias": np.zeros(units, np.float32),
            },
        },
    }
