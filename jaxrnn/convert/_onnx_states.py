"""Converts nodes of ONNX's operators `LinearAttention` and `CausalConvWithState`.

`export/_onnx_states.py` writes nodes of these operators. In the functions below, `name`
is the name of the node in messages.
"""

import jax

from .._base.errors import expect
from .._cells.base import BoundCell
from .._cells.matrix.memories import DeltaMemoryCell, LinearAttentionMemoryCell
from .._cells.short_conv import ShortConvCell
from .._cells.wrappers.multi_rnn import MultiRNNCell
from ._weights import Reader, Weights, on_device, pick

_MEMORIES = {"linear": LinearAttentionMemoryCell, "gated": LinearAttentionMemoryCell}
_MEMORIES |= {"delta": DeltaMemoryCell, "gated_delta": DeltaMemoryCell}
_SIZES = (
    "Add the entry to the node's dict. For an input, add the size of its last axis."
)


def _convolution(name: str, node: Weights) -> BoundCell:
    read = Reader(node, f"{name}['", "']")
    weight = read("weight", None, 1, None)
    params = {"kernel": weight[:, 0].T}
    if node.get("bias") is not None:
        params["bias"] = read("bias", len(weight))
    given = node.get("activation", "none")
    is_known = given in ("none", "silu", "swish")
    must, fix = "be 'none', 'silu' or 'swish'", "Omit the entry for no activation."
    expect(is_known, read.name("activation"), must, given, fix)
    cell = ShortConvCell(*weight.shape[::2], use_bias="bias" in params)
    if given == "none":
        return cell.bind(on_device(params))
    return MultiRNNCell([cell, jax.nn.silu]).bind(on_device({"cell_0": params}))


def _memory(name: str, node: Weights) -> BoundCell:
    rule = node.get("update_rule", "gated_delta")
    must = f"be one of {', '.join(map(repr, _MEMORIES))}"
    expect(rule in _MEMORIES, f"{name}['update_rule']", must, rule)
    keys = ("q_num_heads", "kv_num_heads", "query", "value")
    q, kv, query, value = (pick(node, key, _SIZES) for key in keys)
    by_key = "gated" in rule and pick(node, "decay", _SIZES) > kv
    # The last axis of an input holds all heads. With 0 heads, avoid a division by zero;
    # the cell then raises an error.
    sizes = kv, query // max(q, 1), value // max(kv, 1), None if q == kv else q
    scale = node.get("scale") or None  # 0 stands for the cell's default.
    return _MEMORIES[rule](*sizes, key_decay=by_key, scale=scale).bind({})


CELLS = {"LinearAttention": _memory, "CausalConvWithState": _convolution}
# The entries that set fields of a cell. `chunk_size` and `channels_last` are ignored.
_NAMES = "query value decay q_num_heads kv_num_heads update_rule scale chunk_size"
_OF_CONVOLUTION = ("weight", "bias", "activation", "channels_last")
KNOWN = {"LinearAttention": _NAMES.split(), "CausalConvWithState": _OF_CONVOLUTION}
# Attributes of onnxruntime's own operators, for which only the defaults are accepted.
DEFAULTS = {"ndim": 1, "dilation": 1, "state_window": 0}.items()
