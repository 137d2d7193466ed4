"""What all JAX peers share: the modes as programs, compiled and measured alike."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..core import results
from ..core.built import LEARNING_RATE, Built, Variant
from ..core.cases import Case
from ..core.data import Data
from ..core.layouts import Layers, reader
from ..core.programs import compiled

PyTree = Any
Function = Callable[..., Any]

OPTIONS = {"cpu": {"": {}, "no YNN": {"xla_cpu_experimental_ynn_fusion_type": ""}}}


@dataclasses.dataclass(frozen=True)
class Net:
    """A peer's network with the data of one case, all in the peer's own layouts.

    Attributes:
        apply: `(params, inputs, state, lengths) -> (outputs, final state)`.
        params: A pytree.
        inputs: `[T, B, D]`, or the layout that the peer is fastest with.
        state: The initial state.
        lengths: `[B]`, or None.
        cotangents: Of the outputs and of the final state.
        read_params: Parameters, or a gradient, in TensorFlow's layout.
        read_sequences: Inputs or outputs as `[B, T, ...]`.
        read_state: A state as a dict for each layer.
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

    @functools.cached_property
    def before(self) -> Layers:
        """The parameters as read before the first step."""
        return self.read_params(self.params)


def make_net(
    data: Data,
    apply: Function,
    to_params: Callable[[Layers], PyTree],
    layer_state: tuple[Function, Function] = (dict, dict),
    *,
    wrap: Callable[[PyTree], PyTree] = lambda params: params,
    unwrap: Callable[[PyTree], PyTree] = lambda params: params,
    time_major: bool = True,
) -> Net:
    """A network whose state is a list of layers and whose sequences are padded.

    Args:
        data: The case.
        apply: As in `Net`.
        to_params: From TensorFlow's weights to dicts, lists and tuples of arrays.
        layer_state: Makes the state of one layer, and reads it.
        wrap: From the result of `to_params` to the parameters of `apply`.
        unwrap: The inverse of `wrap`.
        time_major: Whether sequences are `[T, B, ...]`.
    """
    make_state, read_state = layer_state
    order = _swap if time_major else np.asarray
    read = reader(to_params, data.weights)

    def states(state):
        return [make_state(layer) for layer in state]

    return Net(
        apply=apply,
        params=wrap(to_params(data.weights)),
        inputs=order(data.inputs),
        state=states(data.state),
        lengths=data.lengths,
        cotangents=(order(data.output_cotangents), states(data.state_cotangents)),
        read_params=lambda params: read(unwrap(params)),
        read_sequences=order,
        read_state=lambda state: [read_state(layer) for layer in state],
    )


def by_layers(layer: Function) -> Function:
    """Runs one layer after the other, each over the whole sequence.

    `layer` is `(number, params, inputs, state, lengths) -> (outputs, final state)`.
    """

    def apply(params, inputs, state, lengths):
        final = []
        for number, (weights, start) in enumerate(zip(params, state, strict=True)):
            inputs, end = layer(number, weights, inputs, start, lengths)
            final.append(end)
        return inputs, final

    return apply


def carry(*names: str, kind: type = tuple) -> tuple[Function, Function]:
    """Makes and reads a layer's state that is a tuple of these, or the only one."""
    if names == ("h",) and kind is tuple:
        return lambda state: state["h"], lambda tree: {"h": tree}
    return (
        lambda state: kind(state[name] for name in names),
        lambda tree: dict(zip(names, tree, strict=True)),
    )


def _swap(sequences: PyTree) -> np.ndarray:
    return np.ascontiguousarray(np.swapaxes(np.asarray(sequences), 0, 1))


def build(case: Case, data: Data, nets: dict[str, Net], equation: str = "") -> Built:
    """Each net with each choice of compiler options."""
    jax.clear_caches()  # Traces of an earlier case would make this one cheaper.
    variants = {}
    for name, net in nets.items():
        net = _in_dtype(net, case.dtype)
        read = functools.partial(_read, case, data, net)
        program = _program(case, net)
        for options, call, facts in compiled_calls(*program):
            full_name = ", ".join(filter(None, (name, options)))
            variants[full_name] = Variant(call, read, facts, *program[:2])
    return Built(variants, equation)


def _in_dtype(net: Net, dtype: str) -> Net:
    """The network with its arrays in that dtype; lengths stay as they are."""
    if dtype == "float32":
        return net
    cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    fields = ("params", "inputs", "state", "cotangents")
    return dataclasses.replace(net, **{f: cast(getattr(net, f)) for f in fields})


def compiled_calls(function: Function, args: tuple, carried: int = 0) -> Any:
    """Yields a name, a call that waits until it is done, and facts for each program.

    The first `carried` results of a call replace the first arguments of the next,
    whose memory the program may overwrite.
    """
    args = jax.device_put(args)
    options = OPTIONS.get(jax.default_backend())
    donate = tuple(range(carried))
    for name, program, facts in compiled(
        function, *args, donate=donate, options=options
    ):
        yield name, _calls(program, args, carried), facts


def _calls(program: Function, args: tuple, carried: int) -> Callable[[], Any]:
    held, args = jax.tree.map(jnp.copy, args[:carried]), args[carried:]

    def call():
        nonlocal held
        results = jax.block_until_ready(program(*held, *args))
        held = results[:carried]
        return results

    return call


def _program(case: Case, net: Net) -> tuple[Function, tuple, int]:
    """The function of a mode, its arguments, and how many of them it replaces."""
    rest = net.inputs, net.state, net.lengths
    if case.is_forward:
        return net.apply, (net.params, *rest), 0
    loss = _loss(net)
    if case.mode == "train":
        function = jax.value_and_grad(loss, argnums=(0, 1, 2))
        return function, (net.params, *rest, net.cotangents), 0
    optimizer = optax.adam(LEARNING_RATE)

    def step(params, moments, *args):
        value, gradient = jax.value_and_grad(loss)(params, *args)
        update, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, update), moments, value

    params = jax.device_put(net.params)
    return step, (params, optimizer.init(params), *rest, net.cotangents), 2


def _read(case: Case, data: Data, net: Net, raw: PyTree) -> dict[str, np.ndarray]:
    if case.mode == "step":
        params, _, loss = raw
        raw = loss, params
    return results.read(case.mode, data, net, raw)


def _loss(net: Net) -> Callable[..., jax.Array]:
    def loss(params, inputs, state, lengths, cots):
        results = net.apply(params, inputs, state, lengths)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), results, cots)
        return sum(jax.tree.leaves(products))

    return loss
