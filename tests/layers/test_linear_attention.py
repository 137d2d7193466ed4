"""The layers of linear attention of `jaxrnn.nnx`, in float64.

`tests/conformance` compares them with other packages.
"""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_near, refusals
from jax.sharding import NamedSharding, PartitionSpec as P

import jaxrnn
import jaxrnn.convert
import jaxrnn.nnx

DEPTH, LENGTH = 8, 8
SIZES = {"num_heads": 4, "key_size": 3, "value_size": 4}
LAYERS = {
    "GatedDeltaNet": SIZES | {"num_key_heads": 2},
    "KimiDeltaAttention": SIZES,
    "Mamba": {"num_states": 3},
    "Mamba2": SIZES | {"num_key_heads": 2},
    "RWKV7TimeMix": {"num_heads": 2},
    "later RWKV7TimeMix": {"num_heads": 2, "layer_index": 1, "num_layers": 3},
}
# Two rows of two documents.
DOCUMENTS = np.random.default_rng(0).normal(size=(4, LENGTH, DEPTH))
ROWS = DOCUMENTS.reshape(2, 2 * LENGTH, DEPTH)
RESETS = np.zeros(ROWS.shape[:2], bool)
RESETS[:, [0, LENGTH]] = True

# The parts of the models' configs that `from_transformers` requires.
CONFIGS = {
    "Mamba": {"model_type": "mamba", "hidden_act": "silu"},
    "Mamba2": {
        "model_type": "mamba2",
        "hidden_act": "silu",
        "time_step_limit": [0.0, np.inf],
        "layer_norm_epsilon": 1e-5,
        "state_size": 3,
    },
}

each_layer = pytest.mark.parametrize("name", LAYERS)
one_is_fast = pytest.mark.fast("*GatedDeltaNet")


def abstract(name, dtype=jnp.float64):
    """A layer whose parameters have no values."""
    kind, options = getattr(jaxrnn.nnx, name.split()[-1]), LAYERS[name]
    options = options | {"param_dtype": dtype}
    return nnx.eval_shape(lambda: kind(DEPTH, **options, rngs=nnx.Rngs(0)))


def make(name, dtype=jnp.float64):
    """A layer with random parameters, which runs in chunks."""
    layer = abstract(name, dtype)
    if name != "Mamba":
        layer.memory = dataclasses.replace(layer.memory, chunk_size=4)
    draw = np.random.default_rng(1).normal
    graph, state = nnx.split(layer)
    random = lambda x: draw(scale=0.5, size=x.shape).astype(x.dtype)
    layer = nnx.merge(graph, jax.tree.map(random, state))
    # Near the authors' initial values: a wrong step leaves no gradient.
    for key, mean in {"A_log": 2.5, "dt_bias": -6}.items():
        if hasattr(layer, key):
            getattr(layer, key)[...] += mean
    nnx.update(layer, jax.device_put(nnx.state(layer)))
    return layer


def load(weights, layer, place=""):
    config = CONFIGS.get(type(layer).__name__)
    options = {"at": place, "config": config}
    return jaxrnn.convert.from_transformers(weights, layer, **options)


def call(layer, x, state=None, **marks):
    """A call; the inputs, turned around, are the values of another layer."""
    if getattr(layer, "layer_index", 0):
        marks["first_values"] = x[..., ::-1]
    return layer(x, state, **marks)


@nnx.jit
def run(layer, x, state=None, resets=None):
    return call(layer, x, state, resets=resets)


@one_is_fast
@each_layer
def test_windows_give_what_one_call_gives(name):
    """A reset takes effect at its step, also at a masked step and at the end."""
    layer = make(name)
    chances = np.random.default_rng(3).random((2, *RESETS.shape))
    mask, resets = chances[0] < 0.7, chances[1] < 0.2
    mask[0, 3:6], resets[0, 4], mask[1, -2:], resets[1, -1] = False, True, False, True
    of_window = nnx.jit(
        lambda layer, x, state, mask, resets: call(
            layer, x, state, mask=mask, resets=resets
        )
    )

    def run_windows(size):
        state, outputs = layer.zero_state(2, ROWS.dtype), []
        for t in range(0, 2 * LENGTH, size):
            at = np.s_[:, t : t + size]
            output, state = of_window(layer, ROWS[at], state, mask[at], resets[at])
            outputs.append(np.asarray(output))
        return np.concatenate(outputs, axis=1), state

    tokens = run_windows(1)
    assert not any(np.any(leaf[1]) for leaf in jax.tree.leaves(tokens[1]))
    assert_near(run_windows(LENGTH), tokens, tolerance=1e-12)


@one_is_fast
@each_layer
def test_a_step_of_training_on_packed_documents(name):
    """All parameters have gradients, and the loss falls as the gradient says.

    Padding has no effect, even if it is NaN; outputs there are 0.
    """
    layer, rate, end = make(name), 1e-6, LENGTH + 3
    targets = np.random.default_rng(2).normal(size=ROWS.shape)
    padded = np.array(ROWS)
    padded[1, end:] = np.nan

    def compute_loss(layer, x):
        lengths = [2 * LENGTH, end]
        results = call(layer, x, sequence_length=lengths, resets=RESETS)
        return jnp.mean((results[0] - targets) ** 2), results

    evaluate = nnx.jit(nnx.value_and_grad(compute_loss, has_aux=True))
    got, want = (evaluate(layer, x) for x in (padded, ROWS))
    assert_near(jax.tree.leaves(got), jax.tree.leaves(want), tolerance=1e-9)
    (loss, (outputs, _)), gradient = got
    assert not np.any(outputs[1, end:])
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(x).all() and np.abs(x).max() > 1e-9 for x in leaves)
    descend = lambda old, slope: np.asarray(old) - rate * np.asarray(slope)
    new = jax.tree.map(descend, nnx.state(layer, nnx.Param), gradient)
    nnx.update(layer, jax.device_put(new))
    fall = rate * sum(np.sum(np.square(x)) for x in leaves)
    (later, _), _ = evaluate(layer, padded)
    np.testing.assert_allclose(loss - later, fall, rtol=0.01)


@pytest.mark.loops
@one_is_fast
@each_layer
def test_time_divided_over_devices(name):
    layer, lengths = make(name), np.array([16, 11])
    want, last = nnx.jit(call)(layer, ROWS, sequence_length=lengths, resets=RESETS)
    mesh = jax.make_mesh((4,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = P(None, "time")

    def part(x, lengths, resets):
        marks = {"sequence_length": lengths, "resets": resets, "axis_name": "time"}
        return call(layer, x, **marks)

    run = jax.shard_map(
        part, mesh=mesh, in_specs=(spec, P(), spec), out_specs=(spec, P())
    )
    got, state = jax.jit(run)(ROWS, lengths, RESETS)
    assert_near(got, want, tolerance=1e-12)
    assert_near(state, last, tolerance=1e-12)


def divided(tree, mesh):
    """Each array is divided along its last axis, if the devices divide it."""

    def put(x):
        is_even = x.shape[-1] % 2 == 0
        spec = [None] * (x.ndim - 1) + ["model" if is_even else None]
        return jax.device_put(x, NamedSharding(mesh, P(*spec)))

    return jax.tree.map(put, tree)


@pytest.mark.slow
@each_layer
def test_bfloat16(name):
    """The memory runs in float32."""
    layer = make(name)
    want, _ = run(layer, DOCUMENTS)
    layer.dtype = jnp.bfloat16
    for _, module in nnx.iter_modules(layer):
        module.dtype = jnp.bfloat16
    x = DOCUMENTS.astype(jnp.bfloat16)
    got, last = run(layer, x)
    assert got.dtype == jnp.bfloat16
    assert last.cell_state.dtype == jnp.float32
    state = layer.zero_state(len(x), x.dtype)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, last)
    assert np.abs(got.astype(float) - want).max() < 0.05 * np.abs(want).max()


@each_layer
def test_there_and_back(name):
    """The argument may have no values, or values, which do not change."""
    layer, zeros = make(name), make(name)
    weights = jaxrnn.convert.to_transformers(layer, at="mixer.")
    assert all(key.startswith("mixer.") for key in weights)
    loaded = load(weights | {"head": 1}, abstract(name), "mixer")
    assert type(loaded) is type(layer)
    assert_near(nnx.state(loaded), nnx.state(layer), tolerance=0)
    nnx.update(zeros, jax.tree.map(lambda x: np.zeros(x.shape), nnx.state(zeros)))
    # Arrays in the other order of bytes.
    foreign = {key: x.astype(x.dtype.newbyteorder()) for key, x in weights.items()}
    loaded = load(foreign, zeros, "mixer")
    assert nnx.graphdef(loaded) == nnx.graphdef(layer)
    assert_near(nnx.state(loaded), nnx.state(layer), tolerance=0)
    assert not any(np.any(x) for x in jax.tree.leaves(nnx.state(zeros)))


@one_is_fast
@each_layer
def test_weights_for_parameters_divided_on_an_explicit_mesh(name):
    layer = make(name)
    weights = jaxrnn.convert.to_transformers(layer)
    kinds = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((2,), ("model",), axis_types=kinds)
    with jax.set_mesh(mesh):
        want = divided(nnx.state(layer), mesh)
        nnx.update(layer, jax.tree.map(jnp.zeros_like, want))
        loaded = nnx.state(load(weights, layer))
    assert_near(loaded, want, tolerance=0)
    assert jax.tree.map(jax.typeof, loaded) == jax.tree.map(jax.typeof, want)


@one_is_fast
@each_layer
def test_no_rows_or_no_steps(name):
    """Outputs are empty; without steps, the state stays."""
    layer = make(name)
    _, state = run(layer, DOCUMENTS)
    outputs, rest = run(layer, DOCUMENTS[:, :0], state)
    assert outputs.shape == (4, 0, DEPTH)
    assert_near(rest, state, tolerance=0)
    outputs, rest = run(layer, DOCUMENTS[:0])
    assert outputs.shape == (0, LENGTH, DEPTH)
    assert jax.tree.map(len, rest) == (0, 0)


@pytest.mark.loops
@pytest.mark.slow
@each_layer
def test_rows_and_time_divided_on_an_explicit_mesh(name):
    layer = make(name)
    want = run(layer, ROWS, resets=RESETS)
    kinds = (jax.sharding.AxisType.Explicit,) * 2
    with jax.set_mesh(jax.make_mesh((2, 2), ("rows", "time"), axis_types=kinds)):
        put = lambda x: jax.device_put(x, P("rows", "time"))
        nnx.update(layer, jax.device_put(nnx.state(layer), P()))
        got = run(layer, put(ROWS), resets=put(RESETS))
        assert jax.typeof(got[0]).sharding.spec[:2] == ("rows", "time")
    assert_near(got, want, tolerance=1e-12)


@pytest.mark.fast("RWKV7TimeMix")
@each_layer
def test_narrow_parameters(name):
    """Inputs in float32 widen the computation; gradients are finite at padding."""
    layer, x = make(name, jnp.float16), ROWS[:, :4]

    def compute_loss(layer, x):
        outputs, _ = call(layer, x, sequence_length=[2, 0])
        assert outputs.dtype == x.dtype
        return jnp.sum(outputs.astype(jnp.float32))

    jax.eval_shape(compute_loss, layer, x.astype(np.float32))
    gradient = nnx.jit(nnx.grad(compute_loss))(layer, x.astype(np.float16))
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf.astype(np.float32)).all() for leaf in leaves)


def test_initial_values_are_the_authors():
    """The ranges and, for RWKV-7, some numbers of the authors' code for two layers."""
    make = lambda kind, *args, **options: nnx.jit(
        lambda rngs: kind(*args, **options, rngs=rngs)
    )(nnx.Rngs(0))
    layer = make(jaxrnn.nnx.Mamba2, 256, 256, 3, 4)
    steps = np.log1p(np.exp(layer.dt_bias[...]))
    assert 0.001 <= steps.min() < 0.0012
    assert 0.08 < steps.max() <= 0.1
    rates = np.exp(layer.A_log[...])
    assert 1 <= rates.min() < 1.2
    assert 15.8 < rates.max() <= 16
    layer = make(jaxrnn.nnx.RWKV7TimeMix, 6, 2, layer_index=1, num_layers=2)
    # For C = 6, N = 3 and layer_id 1 of 2: the ratios are 1 and 0.5.
    ns = np.arange(6)
    zigzag = np.array([-1, 0, 1, -1, 0, 1])
    linear = ns / 5 - 0.5
    np.testing.assert_allclose(layer.mix[0], 1 - (ns / 6) ** 0.1, atol=1e-6)
    np.testing.assert_allclose(layer.mix[3], 1 - (ns / 6) ** 0.35, atol=1e-6)
    w0 = -6 + 6 * (ns / 5) ** 2 + 0.5 + 2.5 * zigzag
    biases = {
        "w": w0,
        "a": -0.19 + 0.3 * zigzag + 0.4 * linear,
        "v": 0.73 - 0.4 * linear,
    }
    for name, want in biases.items():
        got = getattr(layer, name).bias
        np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(layer.k_k, 0.71 - 0.1 * linear, atol=1e-6)


# Wrong weights and arguments.


def test_only_the_first_layer_of_a_file_of_rwkv7_has_unused_weights():
    first, later = make("RWKV7TimeMix"), make("later RWKV7TimeMix")
    save = jaxrnn.convert.to_transformers
    loaded = load(save(later, at="blocks.0.att"), first, "blocks.0.att")
    np.testing.assert_array_equal(loaded.k_k[...], later.k_k[...])
    with pytest.raises(ValueError, match=r"unknown blocks\.1\.att\.v0.*`layer_index`"):
        load(save(later, at="blocks.1.att"), first, "blocks.1.att")


GATED = {"hidden_act": "silu", "model_type": "qwen3_next", "rms_norm_eps": 1e-6}
# The layer, a change of its config, and the option that the message names. A layer
# equals none of these modules, but has weights of the same names.
FOREIGN = [
    ("Mamba", None, "config"),
    ("Mamba", {"hidden_act": "relu"}, "config.hidden_act"),
    ("Mamba2", {"time_step_limit": (0.0, 0.1)}, "layer.time_step_limit"),
    ("Mamba2", {"layer_norm_epsilon": 1e-6}, "layer.norm_epsilon"),
    ("GatedDeltaNet", GATED | {"model_type": "jamba"}, "config.model_type"),
    ("GatedDeltaNet", GATED | {"linear_key_head_dim": 6}, "layer.key_size"),
]


@pytest.mark.parametrize(("name", "change", "place"), FOREIGN)
def test_options_that_a_layer_lacks_are_refused(name, change, place):
    layer = make(name)
    weights = jaxrnn.convert.to_transformers(layer)
    config = change and CONFIGS.get(name, {}) | change
    with pytest.raises(ValueError, match=f"^`{re.escape(place)}` must"):
        jaxrnn.convert.from_transformers(weights, layer, config=config)


def test_configs_are_dicts_or_objects():
    layer, config = make("Mamba2"), CONFIGS["Mamba2"]
    weights = jaxrnn.convert.to_transformers(layer)
    file = config | {"time_step_limit": [0.0, {"__float__": "Infinity"}]}
    for each in config, types.SimpleNamespace(**config), file:
        jaxrnn.convert.from_transformers(weights, layer, config=each)


given = functools.cache(make)
saved = functools.cache(
    lambda **at: jaxrnn.convert.to_transformers(given("Mamba"), **at)
)
OPTIONS = {"rngs": nnx.Rngs(0)}
OF_JAMBA = {f"{name}_layernorm.weight": np.ones(3) for name in ("dt", "b", "c")}


def loaded(change, place="", **at):
    return load(saved(**at) | change, given("Mamba"), place)


def called(*args, name="GatedDeltaNet", **marks):
    return jax.eval_shape(lambda: given(name)(*args, **marks))


def continued(**leaves):
    """A call with a wrong state."""
    state = given("GatedDeltaNet").zero_state(2, ROWS.dtype)
    return called(ROWS, state._replace(**leaves))


VALUE, TYPE, rwkv = ValueError, TypeError, jaxrnn.nnx.RWKV7TimeMix
test_refusals = refusals([
    # Weights.
    (VALUE, r"unknown dt_layernorm\.weight.*Create `layer` with the options",
     lambda: loaded(OF_JAMBA)),
    (VALUE, "no A_log", lambda: load({"D": saved()["D"]}, given("Mamba"))),
    (VALUE, r"`D` must have shape \[16\]", lambda: loaded({"D": np.ones(3)})),
    (TYPE, "`layer` must be one of Gated", lambda: load(saved(), nnx.Dropout(0.5))),
    (VALUE, "Check `at`, the name", lambda: loaded({}, "mixers", at="mixer")),
    # Arguments of a call.
    (VALUE, r"`inputs` must have shape \[any, any, 8\]", lambda: called(ROWS[..., :3])),
    (VALUE, r"`state.*`sequence_length`", lambda: called(ROWS, [9, 16])),
    (VALUE, "`axis_name` must be", lambda: called(ROWS, axis_name="time")),
    (VALUE, "`first_values` must", lambda: called(ROWS, name="later RWKV7TimeMix")),
    # Parts of a state.
    (VALUE, r"`state\.past_inputs`", lambda: continued(past_inputs=np.ones((2, 7)))),
    (VALUE, r"`state\.cell_state`", lambda: continued(cell_state=np.ones((2, 7)))),
    # Options.
    (VALUE, "`dtype` must", lambda: jaxrnn.nnx.Mamba(8, dtype=jnp.int32, **OPTIONS)),
    # Gradients at padding, where the norm reads zeros, would be NaN.
    (VALUE, "`norm_epsilon` must be in",
     lambda: jaxrnn.nnx.GatedDeltaNet(8, 2, 3, 4, norm_epsilon=0, **OPTIONS)),
    (VALUE, "`num_heads` must divide `in_features`", lambda: rwkv(8, 3, **OPTIONS)),
    (VALUE, "`layer_index` must be", lambda: rwkv(8, 2, layer_index=3, **OPTIONS)),
])  # fmt: skip
