"""TensorFlow's contrib modules, run on TensorFlow 2.21 in graph mode.

Contrib ended with TensorFlow 1.15. This module executes its sources, which are in that
wheel, with the few changes that TensorFlow 2.21 needs. Its path is the argument of a
recorder that imports this module:

    pip download tensorflow==1.15.5 --no-deps --python-version 3.7 --only-binary=:all:
"""

import ast
import sys
import types
import zipfile
from typing import Any

import numpy as np
from tensorflow.python.framework import ops, tensor_util
from tensorflow.python.ops import array_ops, control_flow_ops

from .graphs import tf, tf1
from .library import TENSORFLOW

_MODULES = {
    "core_rnn_cell": "rnn/python/ops/core_rnn_cell.py",
    "rnn_cell": "rnn/python/ops/rnn_cell.py",
    "lstm_ops": "rnn/python/ops/lstm_ops.py",
    "gru_ops": "rnn/python/ops/gru_ops.py",
    "fused_rnn_cell": "rnn/python/ops/fused_rnn_cell.py",
    "decoder": "seq2seq/python/ops/decoder.py",
    "sampler": "seq2seq/python/ops/sampler.py",
    "helper": "seq2seq/python/ops/helper.py",
    "attention_wrapper": "seq2seq/python/ops/attention_wrapper.py",
    "basic_decoder": "seq2seq/python/ops/basic_decoder.py",
    "beam_search_decoder": "seq2seq/python/ops/beam_search_decoder.py",
    "loss": "seq2seq/python/ops/loss.py",
}


def load(folder: zipfile.Path) -> types.SimpleNamespace:
    """The modules of `_MODULES`, by name."""
    sys.modules.update(_packages())
    control_flow_ops.cond = _cond
    # They moved.
    for module, name in (
        (control_flow_ops, "while_loop"),
        (ops, "Tensor"),
        (array_ops, "stack"),
        (array_ops, "unstack"),
    ):
        setattr(module, name, getattr(tf1, name))
    found: dict[str, Any] = {}
    for name, path in _MODULES.items():
        full = f"tensorflow.contrib.{path.removesuffix('.py').replace('/', '.')}"
        module = types.ModuleType(full)
        package = sys.modules[full.rpartition(".")[0]]
        setattr(package, name, module)
        sys.modules[full] = found[name] = module
        tree = _Edits().visit(ast.parse((folder / path).read_text()))
        tree = ast.fix_missing_locations(tree)
        vars(module)["_value"] = lambda dim: getattr(dim, "value", dim)
        vars(module)["_register"] = _register_gradient
        exec(compile(tree, str(folder / path), "exec"), vars(module))
    return types.SimpleNamespace(**found)


class _Edits(ast.NodeTransformer):
    """Changes what moved or ended."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Dimensions are plain integers in version 2."""
        self.generic_visit(node)
        if node.attr == "value" and isinstance(node.ctx, ast.Load):
            function = ast.Name("_value", ast.Load())
            return ast.Call(function, [node.value], [])
        if node.attr == "RegisterGradient":
            return ast.Name("_register", ast.Load())
        renamed = {"is_sequence": "is_nested", "Inf": "inf"}
        node.attr = renamed.get(node.attr, node.attr)
        return node


def _cond(*args: Any, **kwargs: Any) -> Any:
    """`tf.cond` as in version 1: it unpacks a list of one element."""
    found = tf1.cond(*args, **kwargs)
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def _register_gradient(operation: str) -> Any:
    """`ops.RegisterGradient`, unless TensorFlow has registered that gradient itself."""
    try:
        ops.gradient_registry.lookup(operation)
    except LookupError:
        return ops.RegisterGradient(operation)
    return lambda function: function


def _packages() -> dict[str, types.ModuleType]:
    """The packages that the sources import from, with stand-ins for what ended."""
    names = ["rnn.python.ops", "seq2seq.python.ops", "seq2seq.ops", "compiler", "util"]
    names += ["framework.python.framework", "layers.python.layers"]
    full = ["tensorflow.contrib"]
    for name in names:
        parts = name.split(".")
        full += [
            ".".join(["tensorflow.contrib", *parts[: i + 1]]) for i in range(len(parts))
        ]
    packages = {name: types.ModuleType(name) for name in full}
    for package in packages.values():
        package.__path__ = []
    contrib = "tensorflow.contrib"
    own = vars(packages[f"{contrib}.compiler"])
    own["jit"] = types.ModuleType("jit")
    vars(packages[f"{contrib}.framework.python.framework"])["tensor_util"] = tensor_util
    layers = types.SimpleNamespace(layer_norm=layer_norm)
    vars(packages[f"{contrib}.layers.python.layers"])["layers"] = layers
    operations = types.SimpleNamespace(gather_tree=gather_tree)
    vars(packages[f"{contrib}.seq2seq.python.ops"])["beam_search_ops"] = operations
    return packages


def layer_norm(inputs: tf.Tensor, reuse: bool, scope: str) -> tf.Tensor:
    """`contrib.layers.layer_norm` of `[batch, features]`, by its own operations."""
    with tf1.variable_scope(scope, reuse=reuse):
        size = inputs.shape[-1:]
        gamma = tf1.get_variable("gamma", size, inputs.dtype)
        beta = tf1.get_variable("beta", size, inputs.dtype)
    mean, variance = tf.nn.moments(inputs, [1], keepdims=True)
    epsilon = 1e-3 if inputs.dtype == tf.float16 else 1e-12
    return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, epsilon)


def gather_tree(
    step_ids: Any, parent_ids: Any, max_sequence_lengths: Any, end_token: Any
) -> tf.Tensor:
    """The operation of that name, which is no part of TensorFlow 2.

    All are `[time, batch, beam]`, the lengths `[batch]`.
    """

    def trace(ids, parents, lengths, end):
        found = np.full_like(ids, end)
        time, batch, width = ids.shape
        for b in range(batch):
            last = min(time, lengths[b])
            for k in range(width):
                at = k
                for t in range(last - 1, -1, -1):
                    found[t, b, k] = ids[t, b, at]
                    at = parents[t, b, at]
                row = found[:last, b, k]
                ended = np.flatnonzero(row == end)
                if len(ended):
                    row[ended[0] :] = end
        return found

    found = tf.numpy_function(
        trace, [step_ids, parent_ids, max_sequence_lengths, end_token], step_ids.dtype
    )
    found.set_shape(step_ids.shape)
    return found


contrib = load(zipfile.Path(sys.argv[1], "tensorflow_core/contrib/"))
TENSORFLOW.modules.extend(vars(contrib).values())
