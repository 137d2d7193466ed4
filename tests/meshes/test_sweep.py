"""Every public function on explicit and automatic meshes equals one device.

On explicit meshes, every two values of arguments occur together in a case. On automatic
meshes, this holds for the drivers; of the other rows, every value occurs. See
`mesh_sweep.py`.
"""

import importlib
import inspect
import itertools

import mesh_decoders
import mesh_modules
import mesh_rows
import pytest
from mesh_sweep import Row, is_allowed
from mesh_values import VALUES

import jaxrnn
from jaxrnn.testing._oracle import close

ROWS = mesh_rows.ROWS | mesh_modules.ROWS | mesh_decoders.ROWS
CASES = {
    f"{name}-{i}-{kind}": (case, kind)
    for name, row in ROWS.items()
    for kind in ("explicit", "auto")
    for i, case in row.cases_on(kind)
}
FAST = [
    "dynamic_rnn-2-explicit",
    "dynamic_rnn-0-auto",
    "packed_rnn-2-explicit",
    "truncated_bptt-2-explicit",
    "contrib.GreedyEmbeddingHelper-0-explicit",
    "contrib.BeamSearchDecoder-1-explicit",
    "nnx.RNN-4-explicit",
]


@pytest.mark.fast(*FAST)
@pytest.mark.parametrize(("case", "kind"), CASES.values(), ids=CASES)
def test_equals_one_device(case, kind):
    try:
        close(case.on_mesh(kind), case.on_one_device, case.row.dtype)
    except Exception as error:
        error.add_note(str(case))
        raise


# The sweep is complete.

HOST = "runs on the host and returns NumPy arrays"
RESULT = "holds results or states"
BASE = "has no computation of its own"
# The public names without a row, and why.
WITHOUT_ROW = {
    "jaxrnn.convert.onnx": {"nodes": "reads a file"},
    "jaxrnn": {
        "AffineCell": BASE,
        "BoundCell": "what `bind` returns; every row has one",
        "ComplexState": RESULT,
        "DeclinedError": "an error",
        "LSTMStateTuple": RESULT,
        "LinearRecurrenceCell": BASE,
        "MLSTMState": RESULT,
        "MemoryPlan": RESULT,
        "PackedBatches": HOST,
        "PackedSequences": "the row of `packed_rnn` has one, and unpacks its outputs",
        "PackedWindow": HOST,
        "ParamSpec": BASE,
        "PastInputsState": RESULT,
        "RNNCell": BASE,
        "RNNCellLike": BASE,
        "Run": "an argument of cells",
        "SLSTMState": RESULT,
        "Stage": BASE,
        "StateSaver": "the row of `static_state_saving_rnn` has one",
        "Steps": "an argument of cells",
        "TensorArray": "the rows of `raw_rnn` read and write them",
        "TensorShape": "a shape",
        "TruncatedBPTT": RESULT,
        "Window": HOST,
        "concat_packed": HOST,
        "init_stack_bidirectional": "reads only shapes",
        "memory_plan": "reads only shapes",
        "native_status": "takes no arrays",
        "pack_sequences": HOST,
        "packed_batches": HOST,
        "stack_packed": HOST,
        "windows": HOST,
    },
    "jaxrnn.contrib": {
        "AttentionMechanism": BASE,
        "AttentionWrapperState": RESULT,
        "BasicDecoder": "the rows of the helpers have one",
        "BasicDecoderOutput": RESULT,
        "BeamSearchDecoderOutput": RESULT,
        "BeamSearchDecoderState": RESULT,
        "CustomHelper": "the base class of the helpers",
        "Decoder": BASE,
        "FinalBeamSearchDecoderOutput": RESULT,
        "FusedRNNCell": BASE,
        "Helper": BASE,
        "NTMControllerState": RESULT,
        "dynamic_decode": "the rows of the helpers and of the beam search run it",
    },
    "jaxrnn.decode": {"Decoded": RESULT},
    "jaxrnn.lite": dict.fromkeys(
        ["TFLiteLSTMCell", "TfLiteRNNCell"], "the row of `lite.dynamic_rnn` runs it"
    ),
    "jaxrnn.linen": {},
    "jaxrnn.nnx": {},
}
# The public modules that the sweep leaves out, and why.
LEFT_OUT_MODULES = {
    "export": "writes files; streams run on one device",
    "extend": "its parts run inside of cells",
    "initializers": "take no sequences",
    "memory": "its strategies are values of `swap_memory`",
    "testing": "laws, which run drivers",
    "typing": "types alone",
}
CONVERTERS = {f"jaxrnn.convert.{name}" for name in jaxrnn.convert.__all__}
MODULES = sorted({*WITHOUT_ROW, *CONVERTERS})


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_row_or_a_reason(module):
    names = set(public_names(module))
    reasons = WITHOUT_ROW.get(module, {})
    swept = {name for name in names if has_row(module, name)}
    assert names - swept - reasons.keys() == set(), "Add a row or a reason."
    assert reasons.keys() <= names - swept, "These reasons are superfluous."


def test_every_public_module_is_in_the_sweep_or_has_a_reason():
    public = [name for name in dir(jaxrnn) if not name.startswith("_")]
    found = {name for name in public if inspect.ismodule(getattr(jaxrnn, name))}
    swept = {module.split(".")[1] for module in MODULES if "." in module}
    assert found - swept == LEFT_OUT_MODULES.keys()


def public_names(module):
    """The names of the public functions and classes.

    Converters of weights take no sequences; the cells that they return are the core's.
    """
    held = vars(importlib.import_module(module))
    names = getattr(importlib.import_module(module), "__all__", held)
    public = [n for n in names if not n.startswith("_") and callable(held[n])]
    if module.startswith("jaxrnn.convert."):
        prefixes = "load", "save"
        own = [n for n in public if held[n].__module__ == module]
        return [n for n in own if not n.startswith(prefixes)]
    return public


def has_row(module, name):
    """Whether a row is named after the name; cells have the rows of `cases.py`."""
    value = getattr(importlib.import_module(module), name)
    prefix = module.removeprefix("jaxrnn").removeprefix(".")
    title = f"{prefix}.{name}" if prefix else name
    if any(row == title or row.startswith(f"{title}-") for row in ROWS):
        return True
    is_class = inspect.isclass(value) and issubclass(value, jaxrnn.RNNCell)
    # A test of the exports demands a row of `cases.py` for every such cell.
    is_cell = is_class and not inspect.isabstract(value)
    return is_cell and module in ("jaxrnn", "jaxrnn.contrib")


def test_every_argument_has_a_value_or_a_reason():
    unknown = {name: row.unknown for name, row in ROWS.items() if row.unknown}
    assert unknown == {}, "Add the arguments to `VALUES` or to `LEFT_OUT`."


def test_a_new_argument_enters_the_sweep():
    def driver(cell, inputs, mask=None, scope=None, gaps=None): ...

    row = Row(driver, (driver,), given={"cell": None, "inputs": None})
    assert row.arguments == {"mask": VALUES["mask"]}
    assert row.unknown == {"gaps"}


@pytest.mark.parametrize("name", ["dynamic_rnn", "linen.RNN", "contrib.sequence_loss"])
def test_every_two_values_that_are_allowed_together_are_in_a_case(name):
    row = ROWS[name]
    counts = {n: len(values) for n, values in row.levels.items()}
    levels = [[(n, i) for i in range(count)] for n, count in counts.items()]
    found = {
        pair for case in row.design for pair in itertools.combinations(case.items(), 2)
    }
    for a, b in itertools.combinations(levels, 2):
        for pair in itertools.product(a, b):
            is_found = pair in found or pair[::-1] in found
            assert is_found == is_allowed(dict(pair)), pair
    assert all(is_allowed(case) for case in row.design)


def test_the_rows_of_results_are_divided():
    case = ROWS["dynamic_rnn"].cases[2]
    _, (outputs, *_) = case.on_mesh("explicit", fetch=lambda tree: tree)
    assert outputs.sharding.spec[0] == "data"
