"""Wrong arguments of modules and cells for Flax."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import usual_promotion

import jaxrnn
import jaxrnn.convert
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import GRUCell, LSTMCell

ROWS, TIME, DEPTH = 3, 5, 2
X = np.random.default_rng(0).normal(size=(ROWS, TIME, DEPTH)).astype(np.float32)
ONES = np.ones((ROWS, TIME, 3), np.float32)
KEY, GRU = jax.random.key(0), GRUCell(3)
NOISY = jaxrnn.DropoutWrapper(GRU, 0.5)


@pytest.fixture(autouse=True)
def usual_jax():
    """The promotion that Flax's own modules rely on."""
    with usual_promotion():
        yield


def make(kind, *cells, **options):
    return getattr(jaxrnn.nnx, kind)(*cells, DEPTH, rngs=nnx.Rngs(0), **options)


@functools.cache
def rnn(cell=GRU):
    return make("RNN", cell)


def init(module):
    return module.init(KEY, X)


def refused(error, message):
    """Expects an error; in its message "..." stands for any text."""
    match = re.escape(message).replace(re.escape("..."), ".*")
    return pytest.raises(error, match=match)


wrong_type = functools.partial(refused, TypeError)
wrong_value = functools.partial(refused, ValueError)


def test_cells_of_modules():
    with wrong_type("`cell` must be an RNNCell, ..., got the class"):
        rnn(GRUCell)
    bound = "`cell` must be ... got BoundCell. Pass the unbound `cell.cell`"
    with wrong_type(bound):
        make("RNN", GRU.bind({}))
    with wrong_type(bound):
        init(jaxrnn.linen.RNN(GRU.bind({})))
    with wrong_type("`cell_bw` must be an RNNCell, such as ..., got"):
        make("Bidirectional", GRU, nn.GRUCell(3))
    with wrong_value("`cells_bw` must have the depth of"):
        make("StackBidirectional", [GRU], [GRU, GRU])
    cell = jaxrnn.nnx.as_cell(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)), 2).cell
    with wrong_value("`as_cell` has already bound ... to `jaxrnn.dyn"):
        make("RNN", cell)


def test_noise_in_the_rnn_of_flax():
    noisy = "`cell` must not draw random numbers, because Flax's RNN passes no keys, "
    noisy += "got DropoutWrapper... Use `RNN` of `jaxrnn.linen`"
    with wrong_value(noisy):
        init(nn.RNN(jaxrnn.linen.Cell(NOISY)))
    with wrong_value(noisy):
        make("Cell", NOISY)


def test_options():
    with wrong_type("`num_layers` is not an argument"):
        make("RNN", GRU, num_layers=2)
    with wrong_type("`foo` is not an argument"):
        jaxrnn.linen.RNN(GRU, foo=2)
    with wrong_type("`merge` must be a function of both outputs, got 'sum'"):
        make("Bidirectional", GRU, GRU, merge="sum")(X)
    with wrong_type("`dtype` must be a dtype such as jnp.float32, got 'zz'"):
        make("RNN", GRU, dtype="zz")(X)
    with wrong_value("`param_dtype` must be floating-point, got int32"):
        make("RNN", GRU, param_dtype=jnp.int32)


FLAGS = ["reverse", "keep_order", "time_major"]
OF_CALLS = ["return_carry", "return_states", "deterministic"]


@pytest.mark.parametrize("name", FLAGS + OF_CALLS)
def test_a_word_for_a_bool(name):
    message = f"`{name}` must be True or False, got 'no'"
    with wrong_type(message):
        make("RNN", GRU, **{name: "no"})(X)
    if name in OF_CALLS:
        with wrong_type(message):
            rnn()(X, **{name: "no"})


def test_names_of_axes():
    with wrong_type("`axis_names` must be a dict of ...('hidden',)}, got 3"):
        make("RNN", GRU, axis_names=3)
    with wrong_value("`axis_names['bias']` must have a name or None for each"):
        make("RNN", GRU, axis_names={"bias": (None, "hidden")})
    unknown = "`axis_names` must have keys that ... ['bias', 'kernel'], got ['kernal']"
    with wrong_value(unknown):
        make("RNN", GRU, axis_names={"kernal": ("inputs", "hidden")})
    with wrong_value(unknown):
        init(jaxrnn.linen.RNN(GRU, axis_names={"kernal": ("inputs", "hidden")}))
    with wrong_value(unknown):
        module = jaxrnn.linen.RNN(GRU, axis_names={"kernal": ("inputs", "hidden")})
        module.variables_of(GRU.bind(GRU.init(KEY, X[:, 0])))


def test_the_constructor_of_nnx():
    with wrong_type("...missing 1 required positional ...'in_features'"):
        jaxrnn.nnx.RNN(GRU)
    with wrong_type("...missing 1 required keyword...'rngs'"):
        jaxrnn.nnx.RNN(GRU, 2)
    with wrong_type("`rngs` must be nnx.Rngs, for example `nnx.Rngs(0)`, got 0"):
        jaxrnn.nnx.RNN(GRU, 2, rngs=0)
    with wrong_type(
        "`in_features` must be an array or a ...Pass the size of the inputs"
    ):
        jaxrnn.nnx.RNN(GRU, "2", rngs=nnx.Rngs(0))
    with wrong_value("`in_features` must be at least 1, got 0"):
        jaxrnn.nnx.RNN(GRU, np.int64(0), rngs=nnx.Rngs(0))


def test_axes_of_inputs_lengths_and_states():
    axes = "`inputs` must be [*batch, time, ...] with "
    with wrong_value(
        axes + "3 batch axes as in `sequence_length`, 1 time axis and 1 f"
    ):
        rnn()(X, jnp.ones((1, 1, 3), jnp.int32))
    with wrong_value(axes + "... got float32[3, 5]. For one number per step"):
        rnn()(X[..., 0], jnp.array([5, 2, 1], jnp.int32))
    with wrong_value(axes + "...1 feature axis, got float32[5]. For one number per st"):
        rnn()(X[0, :, 0])
    with wrong_value("`inputs[0][0]` must ...To make one array, call"):
        rnn()([[1.0]])
    with wrong_value("`sequence_length` must have the batch axes [1, 3], got"):
        rnn()(X[None], [[1], [2], [3]])
    with wrong_value("`initial_state` must have the batch axes [1, 3], got flo"):
        rnn()(X[None], initial_state=ONES[:, :1])
    with wrong_value("`mask` must have the batch axes [1, 5] after the time axis, got"):
        make("RNN", GRU, time_major=True)(X[:, None], mask=ONES[..., 0] > 0)
    with wrong_value("`initial_state` must be a pair (state_fw, state_bw), got"):
        make("Bidirectional", GRU, GRU)(X, initial_state=ONES[:, 0])
    with wrong_value("must be a pair (states_fw, states_bw), each with one"):
        make("StackBidirectional", [GRU], [GRU])(X, initial_state=((ONES[:, 0],) * 2,))


def test_arguments_of_a_call():
    integers = "`sequence_length` must be integers, one for each row, got "
    mask = integers + "bool[3, 5]. Cast lengths... Pass a mask as `mask=`"
    with wrong_type(mask):
        rnn()(X, X[..., 0] > 0)
    with wrong_type("`seq_lengths` is not an argument of `RNN`. Use `sequence_length`"):
        rnn()(X, seq_lengths=[1, 2, 3])
    with wrong_type("`dones` is not an argument"):
        jaxrnn.linen.RNN(GRU).init(KEY, X, dones=X[..., 0] > 0)
    with wrong_type("`rngs` must be nnx.Rngs, a stream or a key, got 3"):
        make("RNN", NOISY)(X, rngs=3)
    with wrong_value("`reset_state` must be None for a bidirectional module"):
        make("Bidirectional", GRU, GRU)(X, reset_state=(ONES, ONES))


def test_cells_with_weights():
    with wrong_value(
        "['candidate']['kernel']` must have shape [5, 3], got float32[6, 3]. Check"
    ):
        rnn().set_cells(GRU.bind(GRU.init(KEY, ONES[:, 0])))
    with wrong_value("`params` must have the structure {'gru_cell': {'candidate': "):
        rnn().set_cells(GRU.bind({}))
    with wrong_value("`cells` must bind the module's cell GRUCell(num_units=3,"):
        rnn().set_cells(GRUCell(4).bind({}))
    linen, two = jaxrnn.linen.RNN(GRU), jaxrnn.linen.Bidirectional(GRU, GRU)
    one, pair = GRU.bind({}), [GRU.bind({})] * 2
    stack = jaxrnn.linen.StackBidirectional([GRU] * 2, [GRU] * 2)
    with wrong_type("`cells` must be bound by `cell.bind`, got GRUCell"):
        linen.variables_of(GRU)
    with wrong_value("`cells` must be 1 bound cell, got [1, 1]. For several"):
        linen.variables_of(*pair)
    with wrong_value("`cells` must be 1 bound cell for each direction, got [1]. "):
        two.variables_of(one)
    with wrong_value("`cells` must be 1 bound cell for each direction, got [1, 2]."):
        two.variables_of(one, pair)
    with wrong_value("must be 2 bound cells for each direction, got [1, 2]."):
        stack.variables_of([one], pair)
    with wrong_value(
        "`variables` must hold the module's parameters gru_cell, got ['foo']"
    ):
        linen.cells_of({"params": {"foo": 1}})


def test_modules_and_variables_outside_of_flax():
    cell = LSTMCell(4)
    module = rnn(cell)
    bound = cell.bind(module.params["lstm_cell"])
    with wrong_type("`cell.params['kernel']` must be an array, not a variable of nnx"):
        jaxrnn.convert.torch.save(bound)
    with wrong_value("`params` must have the structure {'bias': *, 'kernel': *}, got"):
        jaxrnn.dynamic_rnn(bound, X, dtype=X.dtype)
    with wrong_type(
        "got RNN. For a module, pass `get_cells()` or `cells_of(variables)`"
    ):
        jaxrnn.convert.torch.save(module)
    with wrong_type("Convert a Flax cell with `as_cell`"):
        jaxrnn.dynamic_rnn(nn.GRUCell(3), X, dtype=X.dtype)


class NoModule:
    initialize_carry = __call__ = None


def test_as_cell():
    with wrong_type("`module` must be a cell of linen, such as nn.LSTMCell, with a"):
        jaxrnn.linen.as_cell(nn.Dense(3))
    with wrong_type("`module` must be a cell of nnx, such as ..., got ...NoModule"):
        jaxrnn.nnx.as_cell(NoModule(), 3)
    with wrong_type("`in_features` must be an integer, got 2.0"):
        jaxrnn.linen.as_cell(nn.GRUCell(3), 2.0)


@pytest.mark.parametrize(
    "convert",
    [
        lambda: jaxrnn.nnx.as_cell(nnx.GRUCell(2, 3, rngs=nnx.Rngs(0)), 5),
        lambda: jaxrnn.linen.as_cell(nn.ConvLSTMCell(2, (3, 3))),
    ],
)
def test_other_features_than_the_module_has_are_noted(convert):
    with pytest.raises((TypeError, ValueError)) as caught:
        convert()
    note = r"Raised by a step with inputs \[1, \d\], which `in_features` sets"
    assert re.search(note, "\n".join(caught.value.__notes__))
