"""The arrays of a call have one order in Python and in C++."""

import pathlib
import re

from jaxrnn._cells.affine.native import calls

HEADER = pathlib.Path(__file__).parents[2] / "native" / "src" / "layout.h"
# The names in C++ of the arrays of a field, where they differ.
NAMES = {
    "state_numbers": ["starts"],
    "weights": ["kernel", "bias"],
    "kernels": ["kernel"],
    "state": ["h", "c"],
    "restart_states": ["restart_h", "restart_c"],
    "last": ["last_h", "last_c"],
    "ct_last": ["ct_last_h", "ct_last_c"],
    "ct_state": ["ct_h", "ct_c"],
    "ct_restart_states": ["ct_restart_h", "ct_restart_c"],
    "computed": ["operand"],
}
FORWARD = {"saved": ["saved_h", "saved_c"]}
# Without restarts, the outputs are the saved h.
BACKWARD = {"saved": ["saved_h", "outputs", "saved_c"]}


def names_in_header(entry, kind):
    """The names of the arguments or results of an entry, in order."""
    text = HEADER.read_text()
    body = re.search(rf"VisitArrays\({entry}& entry.*?\n}}", text, re.DOTALL)
    call = rf'visitor\.{kind}\((?:Of\()?"(\w+)"'
    return re.findall(call, body.group())


def names_in_python(fields, own):
    names = NAMES | own
    return [name for field in fields._fields for name in names.get(field, [field])]


def test_loops():
    for entry, args, results, own in (
        ("Forward", calls.ForwardArgs, calls.ForwardResults, FORWARD),
        ("Backward", calls.BackwardArgs, calls.BackwardResults, BACKWARD),
    ):
        assert names_in_header(entry, "Argument") == names_in_python(args, own)
        assert names_in_header(entry, "Result") == names_in_python(results, own)


def test_products():
    arguments = ["lengths", "x", "operand", "first", "ct_zs"]
    assert names_in_header("Weights", "Argument") == arguments
    assert names_in_header("Weights", "Result") == ["ct_kernel", "ct_bias"]
    assert names_in_header("Inputs", "Argument") == ["lengths", "kernel", "ct_zs"]
