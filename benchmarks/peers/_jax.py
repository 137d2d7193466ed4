"""Code shared by all JAX peers: builds, compiles and calls a program per mode."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import results
from ..built import Variant, Variants
from ..cases import Case
from ..data import Data, Layers

PyTree = Any
Function = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Net:
    """A peer's network and the data of one case, in the peer's layouts.

    Attributes:
        apply: `(params, inputs, state, lengths) -> (outputs, final state)`.
        params: The parameters, a pytree.
        inputs: `[T, B, D]`, or the layout in which the peer is fastest.
        state: The initial state.
        lengths: `[B]`, or None; if the case has resets, they are here, `[T, B]`.
        cotangents: The cotangents of the outputs and of the final state.
        read_params: Converts the gradient by the parameters to TensorFlow's layout.
        read_sequences: Converts inputs or outputs to `[B, T, ...]`.
        read_state: Converts a state to a list with a dict for each layer.
    """

    apply: Function
    params: PyTree
    inputs: PyTree
    state: PyTree
    lengths: PyTree
    cotangents: tuple[PyTree, PyTree]
    read_params: Callable[[PyTree], Layers]
    read_sequences: Callable[[PyTree], np.ndarray]
    read_state: Callable[[PyTree], Layers]


def make_net(
    data: Data,
    apply: Function,
    to_params: Callable[[Layers], PyTree],
    layer_state: tuple[Function, Function] = (dict, dict),
    *,
    time_major: bool = True,
) -> Net:
    """A network with padded sequences and a list of layer states.

    Args:
        data: The data of the case.
        apply: The same as in `Net`.
        to_params: Converts TensorFlow's weights to the parameters of `apply`; traced.
        layer_state: A function that builds the state of one layer from a dict, and its
            inverse.
        time_major: Whether sequences are `[T, B, ...]`.
    """
    make_state, read_state = layer_state
    order = _swap if time_major else np.asarray

    def read_params(gradient):
        [found] = jax.vjp(to_params, data.weights)[1](gradient)
        return found

    def states(state):
        return [make_state(layer) for layer in state]

    return Net(
        apply=apply,
        params=to_params(data.weights),
        inputs=order(data.inputs),
        state=states(data.state),
        lengths=data.lengths if data.resets is None else data.resets.T,
        cotangents=(order(data.output_cotangents), states(data.state_cotangents)),
        read_params=read_params,
        read_sequences=order,
        read_state=lambda state: [read_state(layer) for layer in state],
    )


def layered_net(
    data: Data, layer: Function, to_params: Function, *options: Any, **more: Any
) -> Net:
    """A network that runs one layer after the other, each over the whole sequence.

    Args:
        data: The data of the case.
        layer: `(number, params, inputs, state, lengths) -> (outputs, final state)`.
        to_params: Converts the weights of one layer.
        options: The other arguments of `make_net`.
        more: The same, by name.
    """

    def apply(params, inputs, state, lengths):
        final = []
        for number, (weights, start) in enumerate(zip(params, state, strict=True)):
            inputs, end = layer(number, weights, inputs, start, lengths)
            final.append(end)
        return inputs, final

    to_all = lambda layers: [to_params(weights) for weights in layers]
    return make_net(data, apply, to_all, *options, **more)


def _batch_major(net: Net) -> Net:
    """The net with inputs and outputs `[B, T, ...]`, which its `apply` expects."""
    outputs, state = net.cotangents
    return dataclasses.replace(
        net,
        inputs=_swap(net.inputs),
        cotangents=(_swap(outputs), state),
        read_sequences=np.asarray,
    )


def carry(*names: str, kind: type = tuple) -> tuple[Function, Function]:
    """Functions that build and read a layer's state: a tuple, or only `h`."""
    if names == ("h",) and kind is tuple:
        return lambda state: state["h"], lambda tree: {"h": tree}
    return (
        lambda state: kind(state[name] for name in names),
        lambda tree: dict(zip(names, tree, strict=True)),
    )


def _swap(sequences: PyTree) -> np.ndarray:
    return np.ascontiguousarray(np.swapaxes(np.asarray(sequences), 0, 1))


def build(case: Case, data: Data, nets: dict[str, Net]) -> Variants:
    """The variants: the nets, compiled."""
    jax.clear_caches()  # Otherwise, traces of an earlier case could be reused.
    if case.pattern == "mapped":
        nets = {name: _batch_major(net) for name, net in nets.items()}
    variant = functools.partial(_variant, case, data)
    return {name: functools.partial(variant, net) for name, net in nets.items()}


def _variant(case: Case, data: Data, net: Net) -> Variant:
    """The compiled program of a case, with its memory."""
    function, args = program(case, net)
    args = jax.device_put(_cast(case.dtype, args))
    compiled = jax.jit(function).lower(*args).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes

    def read(raw: PyTree) -> dict[str, np.ndarray]:
        return results.read(case.mode, data, net, _cast("float32", raw))

    return Variant(
        run=lambda: jax.block_until_ready(compiled(*args)),
        read=read,
        facts={"temp_bytes": temporary},
        function=function,
        args=args,
    )


def program(case: Case, net: Net) -> tuple[Function, tuple]:
    """The function of a mode, and its arguments."""
    rest = net.inputs, net.state, net.lengths
    if case.mode == "forward":
        return net.apply, (net.params, *rest)

    def loss(params, inputs, state, lengths, cotangents):
        results = net.apply(params, inputs, state, lengths)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), results, cotangents)
        return sum(jax.tree.leaves(products))

    return jax.value_and_grad(loss, (0, 1, 2)), (net.params, *rest, net.cotangents)


def _cast(dtype: str, tree: PyTree) -> PyTree:
    """The tree with its floating-point arrays in this dtype."""

    def cast(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)
