"""What holds for the weights of every library."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert_checks import bound, same_cell
from helpers import assert_same

from jaxrnn import (
    BasicLSTMCell,
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    convert,
)
from jaxrnn.contrib import CoupledInputForgetGateLSTMCell

UNITS = 4
INPUTS = jax.ShapeDtypeStruct((1, UNITS), np.float64)
FREE = LSTMCell(UNITS, forget_bias=0)  # What most libraries have.
PEEPING = LSTMCell(UNITS, forget_bias=0, use_peepholes=True)
GRU, AFTER = GRUCell(UNITS), CudnnCompatibleGRUCell(UNITS)
RNN, RELU = BasicRNNCell(UNITS), BasicRNNCell(UNITS, activation="relu")
HALF = {"forget_bias": 0.5}


def stack(*cells):
    """Layers that share no parameters."""
    return MultiRNNCell([dataclasses.replace(cell) for cell in cells])


# A cell for each way in which a library keeps weights, as `load` gives it.
CELLS = {
    "equinox": FREE,
    "equinox_gru": CudnnCompatibleGRUCell(UNITS),
    "haiku": LSTMCell(UNITS),
    "haiku_gru": GRUCell(UNITS),
    "keras": FREE,
    "keras_gru": CudnnCompatibleGRUCell(UNITS),
    "linen": FREE,
    "nnx": FREE,
    "nnx_rnn": BasicRNNCell(UNITS),
    "onnx": PEEPING,
    "tf1": LSTMCell(UNITS, num_proj=2),
    "tf1_gru": CudnnCompatibleGRUCell(UNITS),
    "torch": LSTMCell(UNITS, forget_bias=0, num_proj=2),
    "torch_gru": CudnnCompatibleGRUCell(UNITS),
}
LIBRARIES = convert.__all__
BOTH_WAYS = [name for name in LIBRARIES if name not in ("equinox", "haiku")]
every_cell = pytest.mark.parametrize("name", CELLS)
every_library = pytest.mark.parametrize("name", LIBRARIES)


def library(name):
    return getattr(convert, name.split("_")[0])


def is_array(leaf):
    return isinstance(leaf, np.ndarray | jax.Array)


# The library, the cell, and the options of `save` and of `load`.
ROWS = [
    *[("equinox", cell, {}, {}) for cell in (FREE, AFTER, stack(AFTER, FREE))],
    *[("haiku", cell, {}, {}) for cell in (LSTMCell(UNITS), GRU, RELU)],
    ("haiku", stack(*[GRU] * 11), {}, {}),  # Sorted names are in another order.
    *[("keras", cell, {}, {}) for cell in (FREE, GRU, AFTER, RNN)],
    ("keras", RELU, {}, {"activation": "relu"}),
    ("keras", stack(FREE, GRU, AFTER), {}, {}),
    *[("linen", cell, {}, {}) for cell in (FREE, AFTER, RNN, stack(AFTER, FREE))],
    ("linen", RELU, {}, {"activation": "relu"}),
    *[("nnx", cell, {}, {}) for cell in (FREE, RNN, stack(RNN, FREE))],
    *[("nnx", cell, {"optimized": True}, {}) for cell in (FREE, stack(RNN, FREE))],
    ("nnx", RELU, {}, {"activation": "relu"}),
    *[("onnx", cell, {}, {}) for cell in (FREE, PEEPING, GRU, AFTER, RNN, RELU)],
    ("onnx", GRUCell(UNITS, activation="softplus"), {}, {}),
    ("onnx", stack(PEEPING, GRU, AFTER), {}, {}),
    *[("tf1", cell, {}, {}) for cell in (RNN, GRU, AFTER, LSTMCell(UNITS))],
    ("tf1", BasicLSTMCell(UNITS, 0.5), HALF, HALF),
    ("tf1", LSTMCell(UNITS, use_peepholes=True, num_proj=2, **HALF), HALF, HALF),
    ("tf1", RELU, {"activation": "relu"}, {"activation": "relu"}),
    ("tf1", stack(GRU, LSTMCell(UNITS)), {"scope": ""}, {"scope": ""}),
    *[("torch", cell, {}, {}) for cell in (FREE, AFTER, RNN, stack(FREE, FREE, FREE))],
    ("torch", LSTMCell(UNITS, num_proj=2, forget_bias=0), {}, {}),
    ("torch", RELU, {"prefix": "a."}, {"prefix": "a.", "nonlinearity": "relu"}),
]


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize(("name", "cell", "to", "of"), ROWS)
def test_load_takes_what_save_gives(name, cell, to, of, dtype):
    cell = bound(cell, dtype)
    same_cell(library(name).load(library(name).save(cell, **to), **of), cell)


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != "tf1"])
def test_a_forget_bias_moves_into_the_bias(name):
    """All but the constant that the library adds at run time."""
    cell = bound(BasicLSTMCell(UNITS, forget_bias=1.5))
    again = library(name).load(library(name).save(cell))
    added = 1.0 if name == "haiku" else 0.0
    assert again.cell == LSTMCell(UNITS, forget_bias=added)
    i, j, f, o = np.split(cell.params["bias"], 4)
    want = np.concatenate([i, j, f + (1.5 - added), o])
    np.testing.assert_array_equal(again.params["bias"], want)


@every_cell
def test_traced_weights(name):
    """The same bits as of concrete weights; some weights may stay concrete."""
    load, save = library(name).load, library(name).save
    cell = bound(CELLS[name], np.float32)
    weights = save(cell)
    leaves, tree = jax.tree.flatten(weights)
    arrays = {i: leaf for i, leaf in enumerate(leaves) if is_array(leaf)}

    @jax.jit
    def load_traced(traced):
        own = [traced.get(i, leaf) for i, leaf in enumerate(leaves)]
        return load(tree.unflatten(own))

    @jax.jit
    def save_traced(params):
        return list(filter(is_array, jax.tree.leaves(save(cell.cell.bind(params)))))

    for traced in (arrays, dict(list(arrays.items())[1:2])):
        same_cell(load_traced(traced), load(weights))
    assert_same(save_traced(cell.params), list(arrays.values()))


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_a_forget_bias_is_added_in_the_dtype_of_the_bias(dtype):
    cell = bound(LSTMCell(1, forget_bias=0.5), dtype)
    got = convert.torch.save(cell)["bias_ih_l0"]
    i, j, f, o = cell.params["bias"].astype(
        np.float64
    )  # PyTorch's order is i, f, j, o.
    want = np.array([i, f + 0.5, j, o]).astype(dtype)
    np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_load_takes_what_save_gives_of_two_directions(name):
    free = LSTMCell(UNITS, forget_bias=1.0) if name == "tf1" else FREE
    cells = [(bound(free), bound(free, depth=2 * UNITS, seed=i)) for i in range(2)]
    again = library(name).load(
        library(name).save(cells, bidirectional=True), bidirectional=True
    )
    for got, want in zip(again, cells, strict=True):
        assert_same([cell.params for cell in got], [cell.params for cell in want])


# Refusals.


@every_cell
def test_weights_of_two_dtypes(name):
    """Each weight separately."""
    leaves, tree = jax.tree.flatten(library(name).save(bound(CELLS[name])))
    for i in [i for i, leaf in enumerate(leaves) if is_array(leaf)]:
        changed = [*leaves[:i], leaves[i].astype(np.float32), *leaves[i + 1 :]]
        with pytest.raises(TypeError, match=r"must be float.* like `.*`, got float"):
            library(name).load(tree.unflatten(changed))


def test_traced_weights_whose_values_are_needed():
    gru = CudnnCompatibleGRUCell(UNITS)  # nnx's GRU lacks one of its biases.
    params = bound(gru).params
    wanted = r"nnx\.save: .*\['bias'\]` must be concrete, since nnx's GRUCell lacks"
    with pytest.raises(TypeError, match=wanted):
        jax.eval_shape(lambda params: convert.nnx.save(gru.bind(params)), params)
    cell = bound(MultiRNNCell([gru, gru]), depth=UNITS)  # Two copies in TensorFlow.
    load = lambda weights: convert.tf1.load(weights, cell=cell.cell, inputs=INPUTS)
    wanted = r"tf1\.load: `rnn/.*` must be concrete, since both layers of `cell`"
    with pytest.raises(TypeError, match=wanted):
        jax.eval_shape(load, convert.tf1.save(cell))
    same_cell(load(convert.tf1.save(cell)), cell)


@every_cell
def test_weights_of_no_units(name):
    def emptied(leaf):
        if not is_array(leaf):
            return leaf
        sizes = [size if size % UNITS else 0 for size in leaf.shape]
        return np.zeros(sizes)

    weights = jax.tree.map(emptied, library(name).save(bound(CELLS[name])))
    with pytest.raises(ValueError, match=r"load: `.+` must not be empty, got float64"):
        library(name).load(weights)


@pytest.mark.parametrize("name", [n for n in LIBRARIES if n != "keras"])
def test_names_that_are_no_strings(name):
    with pytest.raises((TypeError, ValueError), match=rf"convert\.{name}\.load: .*1"):
        library(name).load({1: np.ones((3, 4))})


@pytest.mark.parametrize("name", ["tf1", "torch", "haiku"])
def test_where_weights_lie_is_a_string(name):
    cell = bound(CELLS[name])
    saved = library(name).save(cell)
    for call in (library(name).load, library(name).save):
        with pytest.raises(
            TypeError, match=r"must be (a string|the name of a module).* got 3"
        ):
            call(saved if call is library(name).load else cell, 3)


class OfOnesOwn(LSTMCell):
    """A cell of unknown equations."""


KERNEL, BIAS = np.ones((7, 16)), np.ones(16)
WRONG = {
    "none": (TypeError, r"`cell\.params` must be a dict", None),
    "missing": (
        ValueError,
        r"`cell` must hold params\['bias'\], .*; missing: params\['bias'\]",
        {"kernel": 1},
    ),
    "list": (
        TypeError,
        r"`cell\.params\['kernel'\]` must be an array, got list",
        {"kernel": [[1.0]], "bias": BIAS},
    ),
    "integers": (
        TypeError,
        r"`cell\.params\['bias'\]` must be floating-point, got int64\[16\]",
        {"kernel": KERNEL, "bias": BIAS.astype(int)},
    ),
    "columns": (
        ValueError,
        r"`cell\.params\['kernel'\]` must have shape \[any, 16\], got float64\[7, 15\]",
        {"kernel": np.ones((7, 15)), "bias": BIAS},
    ),
    "rows": (
        ValueError,
        r"`cell\.params\['kernel'\]` must have at least one row for the inputs and 4 "
        "rows for the state, got 4",
        {"kernel": np.ones((4, 16)), "bias": BIAS},
    ),
    "bias": (
        ValueError,
        r"`cell\.params\['bias'\]` must have shape \[16\], got float64\[1, 16\]",
        {"kernel": KERNEL, "bias": BIAS[None]},
    ),
    "dtypes": (
        TypeError,
        r"`cell\.params\['bias'\]` must be float64 like `cell\.params\['kernel'\]`",
        {"kernel": KERNEL, "bias": BIAS.astype(np.float32)},
    ),
}


@every_library
@pytest.mark.parametrize("case", WRONG)
def test_parameters_that_are_not_those_of_the_cell(name, case):
    error, message, params = WRONG[case]
    with pytest.raises(error, match=rf"convert\.{name}\.save: {message}"):
        library(name).save(FREE.bind(params))


@every_library
def test_parameters_of_a_stack_that_lacks_some(name):
    cell = bound(MultiRNNCell([FREE, LSTMCell(UNITS)]))
    for params, error, place in (
        ({"cell_0": cell.params["cell_0"]}, ValueError, r"cell\.cells\[1\]"),
        ({"cell_0": 3, "cell_1": 3}, TypeError, r"cell\.cells\[0\]\.params"),
        (3, TypeError, r"cell\.params"),
    ):
        with pytest.raises(error, match=rf"save: `{place}` must"):
            library(name).save(cell.cell.bind(params))


@pytest.mark.parametrize("name", [n for n in LIBRARIES if n != "tf1"])
@pytest.mark.parametrize("cell", [OfOnesOwn(UNITS), ResidualWrapper(FREE)])
def test_cells_that_are_not_known(name, cell):
    with pytest.raises(TypeError, match=r"`cell` must be a BasicRNNCell, .* got"):
        library(name).save(bound(cell))


FEATURES = {
    "peepholes": LSTMCell(UNITS, use_peepholes=True),
    "projection": stack(FREE, LSTMCell(UNITS, num_proj=2)),
    "clips": LSTMCell(UNITS, cell_clip=3.0),
    "coupled gates": CoupledInputForgetGateLSTMCell(UNITS),
}
HAS = {"onnx": ("peepholes", "coupled gates"), "torch": ("projection",)}
LACKS = [
    (name, feature)
    for name in LIBRARIES
    for feature in FEATURES
    if name != "tf1" and feature not in HAS.get(name, ())
]


@pytest.mark.parametrize(("name", "feature"), LACKS)
def test_features_that_a_library_lacks(name, feature):
    cell = bound(FEATURES[feature])
    message = rf"`cell.*` must have no .*, which \w+ does not support, got {feature}\."
    with pytest.raises(ValueError, match=message):
        library(name).save(cell)


@pytest.mark.parametrize("name", [name for name in BOTH_WAYS if name != "tf1"])
def test_the_number_of_directions(name):
    load, cell = library(name).load, bound(FREE)
    two = library(name).save((cell, cell), bidirectional=True)
    for weights, needs, has in (
        (two, True, "two directions"),
        (library(name).save(cell), False, "one direction"),
    ):
        message = f"`bidirectional` must be {needs}, since `.*` has {has}"
        with pytest.raises(ValueError, match=message):
            load(weights, bidirectional=not needs)


@every_cell
def test_wrappers_without_a_key_are_looked_through(name):
    cell = bound(CELLS[name])
    wrapped = DropoutWrapper(cell.cell, 0.5).bind(cell.params)
    assert_same(library(name).save(wrapped), library(name).save(cell))


def test_cells_of_a_stack_within_wrappers():
    cell = bound(MultiRNNCell([FREE, LSTMCell(UNITS, forget_bias=0)]))
    noisy = MultiRNNCell([DropoutWrapper(each, 0.5) for each in cell.cell.cells])
    got = convert.torch.save(noisy.bind(cell.params))
    assert_same(got, convert.torch.save(cell))


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_one_layer_of_two_directions_needs_no_lists(name):
    fw, bw = bound(FREE), bound(LSTMCell(UNITS, forget_bias=0))
    options = {"forget_bias": 0} if name == "tf1" else {}
    save = functools.partial(library(name).save, bidirectional=True, **options)
    assert_same(save((fw, bw)), save(([fw], [bw])))


@every_library
def test_a_converter_shows_what_it_has_and_no_more(name):
    module = getattr(convert, name)
    more = {
        "equinox": {"as_cell"},
        "haiku": {"as_cell"},
        "onnx": {"nodes"},
        "torch": {"load_state", "save_state"},
    }
    assert set(dir(module)) == {"load", "save"} | more.get(name, set())
    assert all(callable(getattr(module, each)) for each in dir(module))
