"""What holds for the weights of every library."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convert_checks import bound, same_cell
from helpers import assert_same

from jaxrnn import (
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
    "onnx": LSTMCell(UNITS, forget_bias=0, use_peepholes=True),
    "tf1": LSTMCell(UNITS, num_proj=2),
    "tf1_gru": CudnnCompatibleGRUCell(UNITS),
    "torch": LSTMCell(UNITS, forget_bias=0, num_proj=2),
    "torch_gru": CudnnCompatibleGRUCell(UNITS),
}
LIBRARIES = convert.__all__
BOTH_WAYS = [n for n in LIBRARIES if hasattr(getattr(convert, n), "load_bidirectional")]
every_cell = pytest.mark.parametrize("name", CELLS)
every_library = pytest.mark.parametrize("name", LIBRARIES)


def library(name):
    return getattr(convert, name.split("_")[0])


def is_array(leaf):
    return isinstance(leaf, np.ndarray | jax.Array)


@every_cell
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_narrow_weights_stay_as_they_are(name, dtype):
    cell = bound(CELLS[name], dtype)
    same_cell(library(name).load(library(name).save(cell)), cell)


@every_library
def test_load_takes_what_save_gives_of_layers(name):
    added = 1.0 if name in ("haiku", "tf1") else 0.0
    cells = [LSTMCell(units, forget_bias=added) for units in (UNITS, UNITS)]
    cell = bound(MultiRNNCell(cells))
    same_cell(library(name).load(library(name).save(cell)), cell)


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
    again = library(name).load_bidirectional(library(name).save_bidirectional(*cells))
    for got, want in zip(again, cells, strict=True):
        assert_same([cell.params for cell in got], [cell.params for cell in want])


@pytest.mark.parametrize("name", ["keras", "linen", "nnx", "tf1"])
def test_an_activation_comes_back_if_load_is_told(name):
    cell = bound(BasicRNNCell(UNITS, activation="relu"))
    options = {"activation": "relu"} if name == "tf1" else {}
    saved = library(name).save(cell, **options)
    same_cell(library(name).load(saved, activation="relu"), cell)
    assert library(name).load(saved).cell == BasicRNNCell(UNITS)


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
        r"rows for the state, got float64\[4, 16\]",
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


@pytest.mark.parametrize("name", [n for n in LIBRARIES if n not in ("onnx", "tf1")])
def test_coupled_gates(name):
    cell = bound(CoupledInputForgetGateLSTMCell(UNITS))
    with pytest.raises(ValueError, match="`cell` must have no coupled gates"):
        library(name).save(cell)


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
    save = functools.partial(library(name).save_bidirectional, **options)
    assert_same(save(fw, bw), save([fw], [bw]))


@every_library
def test_a_converter_shows_what_it_has_and_no_more(name):
    module = getattr(convert, name)
    ways = [
        f"{way}{both}" for way in ("load", "save") for both in ("", "_bidirectional")
    ]
    if name == "torch":
        ways += [way.replace(way[:4], f"{way[:4]}_state") for way in ways]
    ways += ["nodes"] if name == "onnx" else ["as_cell"]
    assert set(module.__all__) <= set(ways)
    assert all(callable(getattr(module, each)) for each in module.__all__)
