"""After `import jaxrnn`, modules load on first use, and other names get hints."""

import doctest
import pathlib
import pydoc
import re
import subprocess
import sys

import pytest

import jaxrnn
import jaxrnn.contrib

ROOT = pathlib.Path(__file__).parents[2]
MODULES = (
    "contrib convert decode export extend initializers lite testing typing".split()
)
OF_FLAX = ["linen", "nnx"]


def run(program):
    """The output of a program in a new process, without earlier imports."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_modules_are_loaded_when_they_are_touched():
    program = f"""
import sys, jaxrnn
assert not hasattr(jaxrnn, "nope")
assert {{*{MODULES + OF_FLAX}}} <= {{*dir(jaxrnn)}}
ours = lambda: filter(lambda n: n.startswith("jaxrnn."), sys.modules)
names = lambda: {{n.removeprefix("jaxrnn.") for n in ours()}}
assert not {{*{MODULES + OF_FLAX}}} & names()
for name in {MODULES}:
    assert getattr(jaxrnn, name) is sys.modules["jaxrnn." + name]
from jaxrnn import contrib
assert contrib is jaxrnn.contrib
assert jaxrnn.convert.torch.load and "flax" not in sys.modules
print(jaxrnn.nnx.RNN.__name__, jaxrnn.linen.RNN.__name__, "flax" in sys.modules)
"""
    assert run(program) == "RNN RNN True\n"


def test_modules_of_flax_without_flax():
    program = """
import pydoc, sys, jaxrnn
sys.modules["flax"] = None
def reason(statement):
    try:
        exec(statement)
    except ImportError as error:
        print(error)
reason("jaxrnn.linen")
reason("from jaxrnn import nnx")
reason("import jaxrnn.linen")
print({"linen", "nnx"} & {*dir(jaxrnn)}, len(pydoc.render_doc(jaxrnn)) > 10_000)
"""
    *errors, rest = run(program).splitlines()
    assert rest == "set() True"
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("the package `flax` is required")
        assert error.endswith("Install it with `pip install flax`.")


HINTS = {
    "nn": (jaxrnn, r"`jaxrnn\.dynamic_rnn`"),
    "rnn_cell": (jaxrnn, r"`jaxrnn\.LSTMCell`"),
    "LSTM": (jaxrnn, r"`LSTMCell`.*`jaxrnn\.nnx\.RNN`"),
    "pipelined_rnn": (jaxrnn, r"`examples/distributed/pipelined_rnn\.py`"),
    "rnn": (jaxrnn.contrib, "this module itself"),
    "static_rnn": (jaxrnn.contrib, r"It is `jaxrnn\.static_rnn`"),
    "legacy_seq2seq": (jaxrnn.contrib, "`legacy_seq2seq` in the guide to contrib"),
    "model_with_buckets": (jaxrnn.contrib, "`legacy_seq2seq` in the guide to contrib"),
    "embedding_attention_decoder": (jaxrnn.contrib, "`legacy_seq2seq`"),
    "embedding_tied_rnn_seq2seq": (jaxrnn.contrib, "`legacy_seq2seq`"),
    "one2many_rnn_seq2seq": (jaxrnn.contrib, "`legacy_seq2seq`"),
    "LSTMBlockWrapper": (jaxrnn.contrib, "`FusedRNNCell`"),
    "CompiledWrapper": (jaxrnn.contrib, r"`jax\.jit`"),
    "GRUBlockCell": (jaxrnn.contrib, "`GRUBlockCellV2`"),
    "rnn_cell ": (jaxrnn.contrib, r"`jaxrnn\.LSTMCell`"),
}


@pytest.mark.parametrize("name", HINTS)
def test_hints_at_names_of_other_libraries(name):
    (module, hint), name = HINTS[name], name.strip()
    with pytest.raises(AttributeError, match=f"no attribute '{name}'.*{hint}"):
        getattr(module, name)
    assert not hasattr(module, name)
    with pytest.raises(ImportError, match=hint):
        exec(f"from {module.__name__} import {name}")


def test_a_name_that_nobody_has():
    message = "^module 'jaxrnn' has no attribute 'LSTMCel'$"
    with pytest.raises(AttributeError, match=message) as caught:
        _ = jaxrnn.LSTMCel
    assert caught.value.name == "LSTMCel"  # So Python can suggest similar names.
    assert caught.value.obj is jaxrnn
    with pytest.raises(ImportError, match="cannot import name 'LSTMCel'"):
        exec("from jaxrnn import LSTMCel")


def test_help_opens_with_the_example_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    code, output = re.findall(r"```\w+\n(.*?)```", readme, re.DOTALL)[:2]
    examples = doctest.DocTestParser().get_examples(jaxrnn.__doc__)
    without_blanks = lambda text: re.sub("\n+", "\n", text)
    got = "".join(example.source for example in examples)
    assert without_blanks(got) == without_blanks(code)
    assert "".join(example.want for example in examples) == output
    first = pydoc.plain(pydoc.render_doc(jaxrnn)).splitlines()[:60]
    for name in [*MODULES, *OF_FLAX, "memory"]:
        assert any(f"`jaxrnn.{name}`" in line for line in first)
    assert any("`dynamic_rnn`" in line for line in first)
