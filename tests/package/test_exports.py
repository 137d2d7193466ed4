"""The public names and modules: what they hold, what they load, and where they are."""

import inspect
import json
import operator
import pathlib
import pickle
import re
import subprocess
import sys
import tomllib

import chex
import jax
import jax.numpy as jnp
import pytest
from cases import CASES
from helpers import drawn

import jaxrnn

ROOT = pathlib.Path(__file__).parents[2]
LOADED_LATER = "contrib convert decode export extend initializers lite testing typing"
LOADED_LATER = LOADED_LATER.split()
OF_FLAX = ["linen", "nnx"]
MODULES = [getattr(jaxrnn, name) for name in [*LOADED_LATER, *OF_FLAX, "memory"]]
MODULES += [jaxrnn, jaxrnn.extend.fields]


def arguments(path):
    """The names of the arguments of a public function or class, in order."""
    return [*inspect.signature(operator.attrgetter(path)(jaxrnn)).parameters]


# TensorFlow's arguments in its order, since users pass them by position. Ours follow.
SIGNATURES = """
dynamic_rnn: cell inputs sequence_length initial_state dtype parallel_iterations
    swap_memory time_major scope
bidirectional_dynamic_rnn: cell_fw cell_bw inputs sequence_length initial_state_fw
    initial_state_bw dtype parallel_iterations swap_memory time_major scope
raw_rnn: cell loop_fn parallel_iterations swap_memory scope
static_rnn: cell inputs initial_state dtype sequence_length scope
static_state_saving_rnn: cell inputs state_saver state_name sequence_length scope
static_bidirectional_rnn: cell_fw cell_bw inputs initial_state_fw initial_state_bw dtype
    sequence_length scope
stack_bidirectional_rnn: cells_fw cells_bw inputs initial_states_fw initial_states_bw
    dtype sequence_length scope
stack_bidirectional_dynamic_rnn: cells_fw cells_bw inputs initial_states_fw
    initial_states_bw dtype sequence_length parallel_iterations time_major scope
    swap_memory
reverse_sequence: input seq_lengths seq_axis batch_axis name
TensorArray: dtype size dynamic_size clear_after_read tensor_array_name handle flow
    infer_shape element_shape colocate_with_first_write_call name
BasicRNNCell: num_units activation reuse name dtype
BasicLSTMCell: num_units forget_bias state_is_tuple activation reuse name dtype
LSTMCell: num_units use_peepholes cell_clip initializer num_proj proj_clip
    num_unit_shards num_proj_shards forget_bias state_is_tuple activation reuse name
    dtype
GRUCell: num_units activation reuse kernel_initializer bias_initializer name dtype
MultiRNNCell: cells state_is_tuple
DropoutWrapper: cell input_keep_prob output_keep_prob state_keep_prob
    variational_recurrent input_size dtype seed dropout_state_filter_visitor
ResidualWrapper: cell residual_fn
DeviceWrapper: cell device
LSTMStateTuple: c h
lite.TFLiteLSTMCell: num_units use_peepholes cell_clip initializer num_proj proj_clip
lite.TfLiteRNNCell: num_units activation reuse name dtype
"""
SIGNATURES = SIGNATURES.replace("\n    ", " ").strip().split("\n")


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda text: text.split(":")[0])
def test_arguments_begin_in_tensorflows_order(signature):
    name, *wanted = signature.replace(":", "").split()
    assert arguments(name)[: len(wanted)] == wanted


# The arguments of `dynamic_rnn` that other drivers and modules lack on purpose.
OF_ONE_CELL = "cell initial_state reset_state"
OF_PADDED = (
    "axis_name mask parallel_iterations reset_state resets swap_memory time_major"
)
OF_CONSTRUCTOR = (
    "cell dtype implementation parallel_iterations scope swap_memory time_major"
)
OF_ONE_MODULE = "axis_name initial_state inputs mask reset_state resets sequence_length"
LACKED = {
    "bidirectional_dynamic_rnn": f"axis_name {OF_ONE_CELL}",
    "stack_bidirectional_dynamic_rnn": f"axis_name {OF_ONE_CELL} return_states",
    "static_rnn": OF_PADDED,
    "static_bidirectional_rnn": f"{OF_PADDED} {OF_ONE_CELL} return_states",
    "static_state_saving_rnn": f"{OF_PADDED} dtype initial_state return_states",
    "stack_bidirectional_rnn": f"{OF_PADDED} {OF_ONE_CELL} return_states",
    # The loop of a convolution holds no states to recompute.
    "short_conv": "cell dtype parallel_iterations return_states scope swap_memory",
    "lite.dynamic_rnn": "axis_name mask reset_state resets return_states",
    # A module has the other arguments in its constructor.
    "nnx.RNN.__call__": OF_CONSTRUCTOR,
    "linen.RNN.__call__": OF_CONSTRUCTOR,
    "nnx.RNN": f"{OF_ONE_MODULE} scope",
}


@pytest.mark.parametrize("name", LACKED)
def test_drivers_have_the_arguments_of_dynamic_rnn(name):
    lacked = {*arguments("dynamic_rnn")} - {*arguments(name)}
    assert lacked == {*LACKED[name].split()}


@pytest.mark.parametrize("name", CASES)
def test_parameter_names_shapes_and_dtypes_are_frozen(name):
    """`python -m tests.golden.record.params` writes the file."""
    case = CASES[name]
    init = lambda: case.cell.init(jax.random.key(0), case.inputs, jnp.float32)
    got = {
        jax.tree_util.keystr(path, simple=True, separator="/"): [str(p.dtype), *p.shape]
        for path, p in jax.tree.leaves_with_path(jax.eval_shape(init))
    }
    params = json.loads((ROOT / "tests" / "golden" / "params.json").read_text())
    assert got == params[name]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_public_names_show_a_public_module_which_names_them(module):
    for name in module.__all__:
        value = getattr(module, name)
        assert "._" not in getattr(value, "__module__", ""), name
        is_named = f"`{name}`" in module.__doc__ or module is jaxrnn.testing
        assert is_named or inspect.ismodule(value), name


# Pickles that name a class or function survive a move of private files.
def test_pickles_refer_to_no_private_module():
    x = jnp.ones((2, 3, 4))
    cell = jaxrnn.MultiRNNCell(
        [jaxrnn.DropoutWrapper(jaxrnn.LSTMCell(5), 0.5), jaxrnn.GRUCell(5, "relu")]
    )
    packed = jaxrnn.pack_sequences(x, [1, 2])
    public = [
        getattr(module, name)
        for module in (jaxrnn, jaxrnn.decode, jaxrnn.lite)
        for name in module.__all__
    ]
    values = {
        "cell": cell,
        "bound": cell.bind(drawn(cell, x[:, 0])),
        "state": cell.zero_state(2, jnp.float32),
        "packed": packed,
        "windows": [jaxrnn.windows(x, 2)[0], jaxrnn.windows(packed, 2)[0]],
        "strategy": jaxrnn.memory.Offload(),
        "size": jaxrnn.TensorShape([5, 5]),
        "lite": jaxrnn.lite.TFLiteLSTMCell(5),
        "functions": [value for value in public if inspect.isfunction(value)],
    }
    for name, value in values.items():
        pickled = pickle.dumps(value)
        modules = set(re.findall(r"jaxrnn[\w.]*", pickled.decode("latin1")))
        public = {"jaxrnn", "jaxrnn.decode", "jaxrnn.lite", "jaxrnn.memory"}
        assert modules <= public, name
        chex.assert_trees_all_equal(pickle.loads(pickled), value)


# Modules.


def test_the_layers_of_imports_hold_all_folders():
    """`lint-imports` checks the imports of the folders that its contract names."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    contracts = tools["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if each["type"] == "layers"]
    found = {path.parent.name for path in ROOT.glob("jaxrnn/*/__init__.py")}
    found |= {path.stem for path in ROOT.glob("jaxrnn/*.py")} - {"__init__"}
    assert {*re.findall(r"jaxrnn\.(\w+)", " ".join(layers))} == found


PROGRAM = f"""
import jax, sys; before = set(sys.modules); import jaxrnn
print(*set(sys.modules) - before)
assert {{*{LOADED_LATER + OF_FLAX}}} <= {{*dir(jaxrnn)}}
for name in {LOADED_LATER}:
    assert getattr(jaxrnn, name) is sys.modules["jaxrnn." + name]
assert jaxrnn.convert.from_torch and "flax" not in sys.modules

sys.modules["flax"] = None  # As if it were not installed.
for statement in "jaxrnn.linen", "from jaxrnn import nnx", "import jaxrnn.linen":
    try:
        exec(statement)
    except ImportError as error:
        print(error)
assert not {{"linen", "nnx"}} & {{*dir(jaxrnn)}}
"""


def test_modules_are_loaded_when_they_are_touched():
    """In a new process, without earlier imports."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    brought, *errors = done.stdout.splitlines()
    packages = {name.split(".")[0] for name in brought.split()}
    assert packages - sys.stdlib_module_names <= {"jaxrnn", "jax", "jaxlib", "numpy"}
    later = {f"jaxrnn.{name}" for name in LOADED_LATER + OF_FLAX}
    assert not later & {*brought.split()}
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("the package `flax` is required")
        assert error.endswith("Run `pip install flax`.")


HINTS = {
    "rnn_cell": (jaxrnn, r"`jaxrnn\.LSTMCell`"),
    "LSTM": (jaxrnn, r"`LSTMCell`.*`jaxrnn\.nnx`"),
    "rnn": (jaxrnn.contrib, "All names are in `jaxrnn.contrib`"),
    "LSTMBlockWrapper": (jaxrnn.contrib, "`FusedRNNCell`"),
}


@pytest.mark.parametrize("name", HINTS)
def test_hints_at_names_of_other_libraries(name):
    module, hint = HINTS[name]
    with pytest.raises(AttributeError, match=f"no attribute '{name}'.*{hint}"):
        getattr(module, name)
    assert not hasattr(module, name)


def test_a_name_that_nobody_has():
    message = "^module 'jaxrnn' has no attribute 'LSTMCel'$"
    with pytest.raises(AttributeError, match=message) as caught:
        _ = jaxrnn.LSTMCel
    assert caught.value.name == "LSTMCel"  # So Python can suggest similar names.
    assert caught.value.obj is jaxrnn
    with pytest.raises(ImportError, match="cannot import name 'LSTMCel'"):
        exec("from jaxrnn import LSTMCel")
