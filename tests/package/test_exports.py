"""The public names: complete, frozen, documented and cheap to import."""

import inspect
import itertools
import json
import operator
import pathlib
import pickle
import re
import typing

import chex
import jax
import jax.numpy as jnp
import pytest
from cases import CASES

import jaxrnn

PARAMS = pathlib.Path(__file__).parents[1] / "golden" / "params.json"
RECORDER = "tests.golden.record.params"
REGENERATE = f"Run `python -m {RECORDER}` and look at the difference."


def public(module):
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }


PUBLIC = public(jaxrnn)
CATALOGUE = PUBLIC | public(jaxrnn.contrib)
CELLS = {
    name
    for name, value in CATALOGUE.items()
    if isinstance(value, type) and issubclass(value, jaxrnn.RNNCell)
    if not inspect.isabstract(value)
}


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
    arguments = lambda fn: inspect.signature(fn).parameters.keys()
    driver = operator.attrgetter(name)(jaxrnn)
    lacked = arguments(jaxrnn.dynamic_rnn) - arguments(driver)
    assert lacked == {*LACKED[name].split()}


@pytest.mark.parametrize("name", CASES)
def test_parameter_names_shapes_and_dtypes_are_frozen(name):
    case = CASES[name]
    params = jax.eval_shape(
        lambda: case.cell.init(jax.random.key(0), case.inputs, jnp.float32)
    )
    got = {
        jax.tree_util.keystr(path, simple=True, separator="/"): [str(p.dtype), *p.shape]
        for path, p in jax.tree.leaves_with_path(params)
    }
    assert got == json.loads(PARAMS.read_text())[name], REGENERATE


NAMES = (
    "contrib convert decode initializers linen lite memory nnx extend typing".split()
)
MODULES = [jaxrnn, jaxrnn.extend.fields, *(getattr(jaxrnn, name) for name in NAMES)]


@pytest.mark.parametrize("module", MODULES)
def test_a_modules_help_names_all_that_is_public(module):
    for name in module.__all__:
        if not inspect.ismodule(getattr(module, name)):
            assert f"`{name}`" in module.__doc__, name


OTHERS = [jaxrnn.export, jaxrnn.testing]
FUNCTIONS = {name for name, value in PUBLIC.items() if inspect.isfunction(value)}
OURS = set(
    "FunctionCell StateSaver ensemble init_stack_bidirectional "
    "memory_plan native_status pack_sequences packed_batches resets_of_done "
    "resets_of_segments windows".split()
)
DOCUMENTED = [CATALOGUE[name] for name in sorted(FUNCTIONS | CELLS | {"TensorArray"})]
DOCUMENTED += filter(inspect.isfunction, public(jaxrnn.decode).values())
DOCUMENTED += filter(callable, map(vars(jaxrnn.lite).get, jaxrnn.lite.__all__))
DOCUMENTED_FUNCTIONS = list(filter(inspect.isfunction, DOCUMENTED))


@pytest.mark.parametrize("value", DOCUMENTED, ids=lambda value: value.__name__)
def test_docstring_says_where_it_comes_from(value):
    doc = inspect.getdoc(value)
    if value.__name__ not in OURS | CELLS:
        assert "Source:" in doc
    doc += inspect.getdoc(jaxrnn.RNNCell) if value.__name__ in CELLS else ""
    for field in inspect.signature(value).parameters:
        is_described = re.search(rf"^ +\*{{0,2}}{field}: ", doc, re.MULTILINE)
        assert is_described, f"`{field}` is not described"


SIGNATURES = """
dynamic_rnn(cell, inputs, sequence_length=None, initial_state=None, dtype=None,
    parallel_iterations=None, swap_memory=False, time_major=False, scope=None,
    resets=None, reset_state=None, implementation=None, mask=None, return_states=False,
    axis_name=None)
bidirectional_dynamic_rnn(cell_fw, cell_bw, inputs, sequence_length=None,
    initial_state_fw=None, initial_state_bw=None, dtype=None, parallel_iterations=None,
    swap_memory=False, time_major=False, scope=None, resets=None, implementation=None,
    mask=None, return_states=False)
raw_rnn(cell, loop_fn, parallel_iterations=None, swap_memory=False, scope=None,
    max_time=None)
static_rnn(cell, inputs, initial_state=None, dtype=None, sequence_length=None,
    scope=None, implementation=None, return_states=False)
static_state_saving_rnn(cell, inputs, state_saver, state_name, sequence_length=None,
    scope=None, implementation=None)
static_bidirectional_rnn(cell_fw, cell_bw, inputs, initial_state_fw=None,
    initial_state_bw=None, dtype=None, sequence_length=None, scope=None,
    implementation=None)
stack_bidirectional_rnn(cells_fw, cells_bw, inputs, initial_states_fw=None,
    initial_states_bw=None, dtype=None, sequence_length=None, scope=None,
    implementation=None)
stack_bidirectional_dynamic_rnn(cells_fw, cells_bw, inputs, initial_states_fw=None,
    initial_states_bw=None, dtype=None, sequence_length=None, parallel_iterations=None,
    time_major=False, scope=None, swap_memory=False, resets=None,
    implementation=None, mask=None)
init_stack_bidirectional(cells_fw, cells_bw, key, inputs, dtype=None)
reverse_sequence(input, seq_lengths, seq_axis=None, batch_axis=None, name=None)
TensorArray(dtype, size=None, dynamic_size=None, clear_after_read=None,
    tensor_array_name=None, handle=None, flow=None, infer_shape=True,
    element_shape=None, colocate_with_first_write_call=True, name=None)
BasicRNNCell(num_units, activation=None, reuse=None, name=None, dtype=None)
BasicLSTMCell(num_units, forget_bias=1.0, state_is_tuple=True, activation=None,
    reuse=None, name=None, dtype=None)
LSTMCell(num_units, use_peepholes=False, cell_clip=None, initializer=None,
    num_proj=None, proj_clip=None, num_unit_shards=None, num_proj_shards=None,
    forget_bias=1.0, state_is_tuple=True, activation=None, reuse=None, name=None,
    dtype=None)
GRUCell(num_units, activation=None, reuse=None, kernel_initializer=None,
    bias_initializer=None, name=None, dtype=None)
MultiRNNCell(cells, state_is_tuple=True)
DropoutWrapper(cell, input_keep_prob=1.0, output_keep_prob=1.0, state_keep_prob=1.0,
    variational_recurrent=False, input_size=None, dtype=None, seed=None,
    dropout_state_filter_visitor=None, mask_per_row=False)
ResidualWrapper(cell, residual_fn=None)
DeviceWrapper(cell, device)
LSTMStateTuple(c, h)
lite.dynamic_rnn(cell, inputs, sequence_length=None, initial_state=None, dtype=None,
    parallel_iterations=None, swap_memory=False, time_major=True, scope=None,
    implementation=None)
lite.TFLiteLSTMCell(num_units, use_peepholes=False, cell_clip=None, initializer=None,
    num_proj=None, proj_clip=None, num_unit_shards=None, num_proj_shards=None,
    forget_bias=1.0, state_is_tuple=True, activation=None, reuse=None, name=None,
    dtype=None)
lite.TfLiteRNNCell(num_units, activation=None, reuse=None, name=None, dtype=None)
"""
SIGNATURES = " ".join(SIGNATURES.split()).removesuffix(")").split(") ")


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda text: text.split("(")[0])
def test_signature_is_tensorflows(signature):
    name, _, wanted = signature.partition("(")
    parameters = inspect.signature(operator.attrgetter(name)(jaxrnn)).parameters
    got = [
        p.name if p.default is p.empty else f"{p.name}={p.default}"
        for p in parameters.values()
    ]
    assert ", ".join(got) == wanted


# All options of converters have names.
CONVERTERS = """
from_equinox(cells)
from_flax(params, *, activation=None, bidirectional=None)
from_haiku(params, *, at=None, input_shape=None)
from_keras(weights, *, activation=None, recurrent_activation='sigmoid',
    reset_after=True, bidirectional=None)
from_onnx(model, *, at=None, bidirectional=None)
from_tf1(variables, *, at='', cell=None, inputs=None, bidirectional=None, memory_at='')
from_torch(state_dict, *, at='', bidirectional=None, nonlinearity=None)
from_torch_state(state, *, bidirectional=False)
from_transformers(state_dict, layer, *, at='', config=None)
onnx_nodes(model, *, at=None)
to_equinox(cell)
to_haiku(cell, *, at=None)
to_keras(cell)
to_linen(cell)
to_nnx(cell, *, optimized=False)
to_onnx_nodes(cell)
to_tf1(cell, *, at='', memory_at='')
to_torch(cell, *, at='')
to_torch_state(state, *, bidirectional=False)
to_transformers(layer, *, at='')
"""


def test_signatures_of_converters():
    got = ""
    for name in jaxrnn.convert.__all__:
        signature = inspect.signature(getattr(jaxrnn.convert, name))
        arguments = [
            each.replace(annotation=inspect.Parameter.empty)
            for each in signature.parameters.values()
        ]
        got += f"{name}{inspect.Signature(arguments)} "
    assert got.split() == CONVERTERS.split()


def calls_of(value):
    """A public function, or the constructor and the public methods of a class."""
    if inspect.isfunction(value):
        yield value
    for cls in value.__mro__ if inspect.isclass(value) else ():
        for name, method in vars(cls).items():
            is_public = not name.startswith("_") or name in ("__init__", "__call__")
            if is_public and inspect.isfunction(method):
                if method.__module__.startswith("jaxrnn"):
                    yield method


# An unbound cell explains itself whatever it is called with. `explain` and
# `memory_plan` take the arguments of `dynamic_rnn`, as does `Setup.run`. The others
# replace fields.
TAKE_ANY_NAME = {"RNNCell.__call__", "explain", "memory_plan", "Setup.run"}
TAKE_ANY_NAME |= {"Run.replace", "Run.of_inner"}
TAKE_ANY_NAME |= {"AttentionWrapperState.clone"}


@pytest.mark.parametrize("module", [*MODULES, *OTHERS])
def test_editors_complete_the_arguments(module):
    """All are named: no call takes `**kwargs`."""
    values = [getattr(module, name) for name in module.__all__]
    for call in itertools.chain(*map(calls_of, values)):
        kinds = {p.kind for p in inspect.signature(call).parameters.values()}
        takes_any = inspect.Parameter.VAR_KEYWORD in kinds
        assert not takes_any or call.__qualname__ in TAKE_ANY_NAME, call


@pytest.mark.parametrize(
    "function",
    [
        jaxrnn.dynamic_rnn,
        jaxrnn.linen.RNN.__call__,
        jaxrnn.convert.from_flax,
        jaxrnn.convert.from_keras,
        jaxrnn.convert.from_onnx,
        jaxrnn.convert.from_tf1,
        jaxrnn.convert.from_torch,
    ],
)
def test_overloads_have_the_arguments_of_the_function(function):
    function = inspect.unwrap(function)
    arguments = inspect.signature(function).parameters
    overloads = typing.get_overloads(function)
    assert len(overloads) > 1
    for each in overloads:
        assert [*inspect.signature(each).parameters] == [*arguments]


def test_a_star_brings_no_module_but_memory():
    names = {}
    exec("from jaxrnn import *", names)  # `jaxrnn.nnx` is loaded, as above.
    assert {n for n, v in names.items() if inspect.ismodule(v)} == {"memory"}
    assert names.keys() - {"__builtins__"} == PUBLIC.keys() | {"memory"}
    layers = {"GatedDeltaNet", "KimiDeltaAttention", "Mamba", "Mamba2", "RWKV7TimeMix"}
    layers |= {"PastInputsState"}
    assert set(jaxrnn.linen.__all__) == set(jaxrnn.nnx.__all__) - layers
    assert "RNN" in jaxrnn.nnx.__all__


@pytest.mark.parametrize("module", [*MODULES, *OTHERS])
def test_public_names_show_a_public_module(module):
    for name in module.__all__:
        home = getattr(getattr(module, name), "__module__", "")
        assert "._" not in home, name


# Pickles that name a class or function survive a move of private files.
def test_pickles_refer_to_no_private_module():
    x = jnp.ones((2, 3, 4))
    cell = jaxrnn.MultiRNNCell(
        [jaxrnn.DropoutWrapper(jaxrnn.LSTMCell(5), 0.5), jaxrnn.GRUCell(5, "relu")]
    )
    packed = jaxrnn.pack_sequences(x, [1, 2])
    values = {
        "cell": cell,
        "bound": cell.bind(cell.init(jax.random.key(0), x[:, 0])),
        "state": cell.zero_state(2, jnp.float32),
        "packed": packed,
        "windows": [jaxrnn.windows(x, 2)[0], jaxrnn.windows(packed, 2)[0]],
        "strategy": jaxrnn.memory.Offload(),
        "size": jaxrnn.TensorShape([5, 5]),
        "lite": jaxrnn.lite.TFLiteLSTMCell(5),
        "functions": DOCUMENTED_FUNCTIONS,
    }
    for name, value in values.items():
        pickled = pickle.dumps(value)
        modules = set(re.findall(r"jaxrnn[\w.]*", pickled.decode("latin1")))
        public = {"jaxrnn", "jaxrnn.decode", "jaxrnn.lite", "jaxrnn.memory"}
        assert modules <= public, name
        again = pickle.loads(pickled)
        chex.assert_trees_all_equal(again, value)
