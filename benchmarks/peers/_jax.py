"""What all JAX peers share: the modes as programs, compiled and measured alike."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..built import LEARNING_RATE, Built, Variant
from ..cases import Case
from ..data import Data, State
from ..results import forward_results, step_results, train_results
from ..timing import timed

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Net:
    """A peer's network with the data of one case, all in the peer's own layouts.

    Attributes:
        apply: `(params, inputs, state, lengths) -> (outputs, final state)`.
        params: A pytree.
        inputs: `[T, B, D]`, or as the peer likes it.
        state: The initial state.
        lengths: `[B]`, or None.
        cotangents: Of the outputs and of the final state.
        read_params: Parameters, or a gradient, in TensorFlow's layout.
        read_sequences: Inputs or outputs as `[B, T, ...]`.
        read_state: A state as a dict for each layer.
    """

    apply: Callable[..., tuple[PyTree, PyTree]]
    params: PyTree
    inputs: PyTree
    state: PyTree
    lengths: PyTree
    cotangents: tuple[PyTree, PyTree]
    read_params: Callable[[PyTree], list[dict[str, np.ndarray]]]
    read_sequences: Callable[[PyTree], np.ndarray]
    read_state: Callable[[PyTree], State]


def make_net(
    data: Data,
    apply: Callable[..., tuple[PyTree, PyTree]],
    params: PyTree,
    read_params: Callable[[PyTree], list[dict[str, np.ndarray]]],
    make_state: Callable[[dict[str, np.ndarray]], PyTree],
    read_state: Callable[[PyTree], dict[str, np.ndarray]],
    time_major: bool = True,
) -> Net:
    """A network whose state is a list of layers and whose sequences are padded.

    `make_state` and `read_state` are for one layer.
    """
    order = _swap if time_major else np.asarray

    def states(state: State) -> list[PyTree]:
        return [make_state(layer) for layer in state]

    return Net(
        apply=apply,
        params=params,
        inputs=order(data.inputs),
        state=states(data.state),
        lengths=data.lengths,
        cotangents=(order(data.output_cotangents), states(data.state_cotangents)),
        read_params=read_params,
        read_sequences=order,
        read_state=lambda state: [read_state(layer) for layer in state],
    )


def by_layers(
    layer: Callable[..., tuple[PyTree, PyTree]],
) -> Callable[..., tuple[PyTree, PyTree]]:
    """Runs one layer after the other, each over the whole sequence."""

    def apply(
        params: PyTree, inputs: PyTree, state: PyTree, lengths: PyTree
    ) -> tuple[PyTree, PyTree]:
        final = []
        for number, (weights, start) in enumerate(zip(params, state, strict=True)):
            inputs, end = layer(number, weights, inputs, start, lengths)
            final.append(end)
        return inputs, final

    return apply


def carry(
    *names: str,
) -> tuple[Callable[..., PyTree], Callable[[PyTree], dict[str, np.ndarray]]]:
    """Makes and reads a layer's state that is a tuple of these, or the only one."""
    if len(names) == 1:
        return lambda state: state[names[0]], lambda tree: {names[0]: tree}
    return (
        lambda state: tuple(state[name] for name in names),
        lambda tree: dict(zip(names, tree, strict=True)),
    )


def in_dtype(net: Net, dtype: str) -> Net:
    """The same network with its data in another dtype; what is read is float32."""

    def cast(to: str, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.asarray(x).astype(to), tree)

    if dtype == "float32":
        return net
    wide = functools.partial(cast, "float32")
    return dataclasses.replace(
        net,
        params=cast(dtype, net.params),
        inputs=cast(dtype, net.inputs),
        state=cast(dtype, net.state),
        cotangents=cast(dtype, net.cotangents),
        read_params=lambda params: net.read_params(wide(params)),
        read_sequences=lambda sequences: net.read_sequences(wide(sequences)),
        read_state=lambda state: net.read_state(wide(state)),
    )


def _swap(sequences: PyTree) -> np.ndarray:
    return np.ascontiguousarray(np.swapaxes(np.asarray(sequences), 0, 1))


def build(case: Case, data: Data, nets: dict[str, Net], equation: str = "") -> Built:
    """Each net with each choice of compiler options."""
    jax.clear_caches()  # What a case before has traced must not make this one cheaper.
    variants = {}
    for name, net in nets.items():
        net = in_dtype(net, case.dtype)
        for options, variant in _MODES[case.mode](net, data):
            variants[", ".join(filter(None, (name, options)))] = variant
    return Built(variants, equation)


def compiled(
    function: Callable[..., Any], *args: PyTree, donate: tuple[int, ...] = ()
) -> Iterator[tuple[str, Callable[..., Any], dict[str, float]]]:
    """The function compiled with each choice of options: name, program and facts."""
    _warm_up()
    lowered, lower_s = timed(jax.jit(function, donate_argnums=donate).lower, *args)
    for name, options in _options().items():
        program, compile_s = timed(lowered.compile, compiler_options=options)
        memory = program.memory_analysis()
        facts = {
            "lower_s": lower_s,
            "compile_s": compile_s,
            "temp_bytes": memory.temp_size_in_bytes if memory else float("nan"),
            "output_bytes": memory.output_size_in_bytes if memory else float("nan"),
        }
        yield name, program, facts


@functools.cache
def _warm_up() -> None:
    """The first compilation of a process sets up the compiler too."""
    jax.jit(lambda x: jax.lax.scan(lambda a, b: (a @ b, a), x, x[None])).lower(
        jnp.ones((2, 2), jnp.float32)
    ).compile()


def _options() -> dict[str, dict[str, str]]:
    options = {"": {}}
    if jax.default_backend() == "cpu":
        options["no YNN"] = {"xla_cpu_experimental_ynn_fusion_type": ""}
    return options


def _forward(net: Net, data: Data) -> Iterator[tuple[str, Variant]]:
    args = jax.device_put((net.params, net.inputs, net.state, net.lengths))

    def read(raw: PyTree) -> dict[str, np.ndarray]:
        outputs, state = raw
        return forward_results(data, net.read_sequences(outputs), net.read_state(state))

    for name, program, facts in compiled(net.apply, *args):
        yield name, Variant(blocking(program, args), read, facts)


def _train(net: Net, data: Data) -> Iterator[tuple[str, Variant]]:
    args = jax.device_put(
        (net.params, net.inputs, net.state, net.lengths, net.cotangents)
    )
    function = jax.value_and_grad(_loss(net), argnums=(0, 1, 2))

    def read(raw: PyTree) -> dict[str, np.ndarray]:
        loss, (params, inputs, state) = raw
        return train_results(
            loss,
            net.read_params(params),
            net.read_sequences(inputs),
            net.read_state(state),
        )

    for name, program, facts in compiled(function, *args):
        yield name, Variant(blocking(program, args), read, facts)


def _step(net: Net, data: Data) -> Iterator[tuple[str, Variant]]:
    args = jax.device_put((net.inputs, net.state, net.lengths, net.cotangents))
    optimiser = optax.adam(LEARNING_RATE)
    loss = _loss(net)

    def step(params: PyTree, memory: PyTree, *args: PyTree) -> PyTree:
        value, gradient = jax.value_and_grad(loss)(params, *args)
        update, memory = optimiser.update(gradient, memory)
        return optax.apply_updates(params, update), memory, value

    # Gradients and changes have the same layout; what is added to a bias to fold
    # TensorFlow's forget bias in would be seen as a change.
    before = net.read_params(net.params)

    def read(raw: PyTree) -> dict[str, np.ndarray]:
        params, _, value = raw
        return step_results(value, before, net.read_params(params))

    params = jax.device_put(net.params)
    memory = optimiser.init(params)
    for name, program, facts in compiled(step, params, memory, *args, donate=(0, 1)):
        yield name, Variant(_updating(program, (params, memory), args), read, facts)


_MODES = {"forward": _forward, "stream": _forward, "train": _train, "step": _step}


def _loss(net: Net) -> Callable[..., jax.Array]:
    def loss(
        params: PyTree, inputs: PyTree, state: PyTree, lengths: PyTree, cots: PyTree
    ) -> jax.Array:
        results = net.apply(params, inputs, state, lengths)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), results, cots)
        return sum(jax.tree.leaves(products))

    return loss


def blocking(program: Callable[..., Any], args: PyTree) -> Callable[[], Any]:
    """Calls that return when they are done."""
    return lambda: jax.block_until_ready(program(*args))


def _updating(
    program: Callable[..., Any], start: tuple[PyTree, PyTree], args: PyTree
) -> Callable[[], Any]:
    """Calls that give their first two results to the next call, which takes them."""
    held = jax.tree.map(jnp.copy, start)

    def run() -> PyTree:
        nonlocal held
        results = jax.block_until_ready(program(*held, *args))
        held = results[:2]
        return results

    return run
