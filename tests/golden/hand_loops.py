"""The drivers and loop functions of the goldens, of JAX or of the recorded library.

As in `hand_cells.py`, `xp` is the library; parts of loop functions have it as `at.xp`.
"""

import types
from collections.abc import Callable
from typing import Any

import numpy as np

from . import hand_cells, trees

Case = dict[str, Any]
Library = hand_cells.Library
At = types.SimpleNamespace


def _at_time(at: At, table: Any) -> Any:
    return table[at.xp.minimum(at.time, table.shape[0] - 1)]


def _over(at: At) -> Any:
    return at.time >= at.lengths


def _all_over(at: At) -> Any:
    return at.xp.all(_over(at))


def _argmax(at: At) -> Any:
    return at.xp.astype(at.xp.argmax(at.output, axis=1), "int32")


def _cast(part: Callable[[At], Any], dtype: str) -> Callable[[At], Any]:
    return lambda at: at.xp.astype(part(at), dtype)


def _first(then: Callable[[At], Any], later: Callable[[At], Any]) -> Any:
    """A part that is one at the first call and another at all later ones."""
    return lambda at: then(at) if at.first else later(at)


FINISHED = {
    "lengths": _over,
    "flags": lambda at: _at_time(at, at.flags),
    "python_bool": _first(lambda at: False, _all_over),
    "true": _first(lambda at: True, _all_over),
    "int": _first(_over, _cast(_over, "int32")),
    "column": lambda at: _over(at)[:, None],
    "wrong_batch": lambda at: at.time >= at.xp.asarray([1, 2], "int32"),
}


def _read(at: At) -> Any:
    return trees.map_leaves(lambda _, steps: _at_time(at, steps), at.inputs)


def _page(at: At) -> Any:
    steps, *shape = at.inputs.shape
    if at.first:
        empty = at.xp.TensorArray(dtype=at.dtype, size=steps)
        at.memo["inputs_ta"] = empty.unstack(at.inputs)
    return at.xp.cond(
        _all_over(at),
        lambda: at.xp.zeros(shape, at.dtype),
        lambda: at.memo["inputs_ta"].read(at.time),
    )


def _token(at: At) -> Any:
    return at.go if at.first else _argmax(at)


INPUTS = {
    "read": _read,
    "page": _page,
    "zeros": lambda at: at.xp.zeros((3, 1), at.dtype),
    "feedback": lambda at: at.go if at.first else at.output,
    "embed": lambda at: at.xp.take(at.embedding, _token(at), axis=0),
    "state": lambda at: at.xp.tanh(at.start if at.first else at.state),
    "other_dtype": _first(_read, _cast(_read, "float32")),
    "other_batch": _first(_read, lambda at: _read(at)[:2]),
}


def _start(at: At) -> Any:
    return at.start


def _tripled(at: At) -> Any:
    return trees.map_leaves(lambda _, x: 3 * x, at.state)


STATES = {
    "keep": _first(_start, lambda at: at.state),
    "tripled": _first(_start, _tripled),
    "scaled": _first(_start, lambda at: at.factor[None] * at.state),
    "other_shape": _first(_start, lambda at: at.state[:, :2]),
}


def _zeros(*shape: int, dtype: str | None = None) -> Callable[[At], Any]:
    """A template: it has no batch axis."""
    return lambda at: at.xp.zeros(shape, dtype or at.dtype)


def _pair(first: Callable[[At], Any], second: Callable[[At], Any]) -> Any:
    return lambda at: (first(at), second(at))


def _nest(at: At) -> Any:
    return {"a": (_sums(at), at.output[:, 1:3]), "b": at.output + at.output}


def _sums(at: At) -> Any:
    return at.xp.sum(at.output, axis=1)


def _output(at: At) -> Any:
    return at.output


_words = _pair(_output, _argmax)
EMITS = {
    "output": _output,
    "doubled": _first(_zeros(3), lambda at: 2 * at.output),
    "sums": _first(_zeros(), _sums),
    "nest": _first(
        lambda at: {"a": _pair(_zeros(), _zeros(2))(at), "b": _zeros(4)(at)}, _nest
    ),
    "nothing": lambda at: (),
    "tokens": _first(_zeros(dtype="int32"), _argmax),
    "signs": _first(_zeros(4, dtype="bool"), lambda at: at.output > 0),
    "state": _first(
        _pair(_zeros(4), _zeros(4)), lambda at: (at.state.c, at.state.h * at.output)
    ),
    "words": _first(_pair(_zeros(4), _zeros(dtype="int32")), _words),
    "template_with_batch": _first(_zeros(3, 4), _output),
    "later_none": _first(_zeros(4), lambda at: None),
    "other_shape": _first(_zeros(4), lambda at: at.output[:, :2]),
}


def _times(at: At) -> Any:
    written = at.loop
    if at.first:
        written = at.xp.TensorArray(at.xp.dtype("int32"), size=6, element_shape=())
    return written.write(at.time, 10 + at.time)


def _deeper(at: At) -> Any:
    total, (left,) = at.loop["n"]
    return {"flag": ~at.loop["flag"], "n": (at.output + total / 2, [left - 1])}


LOOPS = {
    "none": lambda at: None,
    "sum": _first(lambda at: at.sum, lambda at: at.output + at.loop),
    "nest": _first(
        lambda at: {"flag": at.xp.constant(np.True_), "n": (at.sum, [at.lengths])},
        _deeper,
    ),
    "times": _times,
    "outputs": _first(
        lambda at: at.xp.TensorArray(at.dtype, 6, element_shape=(3, 4)),
        lambda at: at.loop.write(at.time - 1, at.output),
    ),
    "four_results": lambda at: None,
    "other_structure": _first(lambda at: at.lengths, lambda at: (at.loop,) * 2),
    "int_to_float": _first(lambda at: 1, lambda at: 1.5),
}
_PARTS = (FINISHED, INPUTS, STATES, EMITS, LOOPS)
_NAMES = ("finished", "input", "state", "emit", "loop")


def loop_fn(
    xp: Library, case: Case, given: dict[str, Any], start: Any
) -> Callable[..., Any]:
    """The loop function of a case, made of its parts."""
    known = {"xp": xp, "name": case["dtype"], "dtype": xp.dtype(case["dtype"])}
    known |= given | {"start": start, "memo": {}}
    parts = [
        table[case["loop"][name]] for table, name in zip(_PARTS, _NAMES, strict=True)
    ]

    def fn(time, output, state, loop_state):
        at = At(time=time, output=output, state=state, loop=loop_state, **known)
        at.first = output is None
        results = tuple(part(at) for part in parts)
        return results[:4] if case["loop"]["loop"] == "four_results" else results

    return fn


def _state(xp: Library, case: Case, cell: Any, start: Any) -> Any:
    """The state to start from, with a TensorArray in front where the case has one."""
    dtype = xp.dtype(case["dtype"])
    if start is None:
        return cell.zero_state(case["batch"], dtype)
    if not case["array_state"]:
        return start
    return (xp.TensorArray(dtype, 9, element_shape=start[0].shape), *start)


def _options(xp: Library, case: Case) -> dict[str, Any]:
    """The case's options, with dtypes for their names."""
    options = {k: hand_cells.argument(xp, v) for k, v in case["options"].items()}
    if options.get("dtype"):
        options["dtype"] = xp.dtype(options["dtype"])
    return options


def _raw_rnn(xp: Library, case: Case, cell: Any, given: Any, start: Any) -> Any:
    options = _options(xp, case)
    if "loop_fn" not in options:
        is_cell = "not_a_cell" not in case["cells"]
        start = _state(xp, case, cell, start) if is_cell else None
        options["loop_fn"] = loop_fn(xp, case, given, start)
    found = xp.raw_rnn(cell, **options)
    return dict(zip(("emit", "state", "loop_state"), found, strict=True))


def _arguments(xp: Library, case: Case, given: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": xp.dtype(case["dtype"])} | given | _options(xp, case)


def _one_way(xp: Library, case: Case, cell: Any, given: Any, start: Any) -> Any:
    arguments = _arguments(xp, case, given)
    if start is not None:
        arguments["initial_state"] = _state(xp, case, cell, start)
    outputs, state = getattr(xp, case["function"])(cell, **arguments)
    return {"outputs": outputs, "state": state}


class _Saver:
    """A state saver that keeps one more than it is given."""

    def __init__(self, states: dict[str, Any]):
        self._states, self.saved = states, {}

    def state(self, name: str) -> Any:
        return self._states[name]

    def save_state(self, name: str, value: Any) -> Any:
        self.saved[name] = value + 1
        return self.saved[name]


def _saving(xp: Library, case: Case, cell: Any, given: Any, start: Any) -> Any:
    arguments = given | _options(xp, case)
    names = [name for _, name in trees.leaves(arguments["state_name"])]
    states = [leaf for _, leaf in trees.leaves(start)]
    saver = _Saver(dict(zip(names, states, strict=False)))
    run = xp.static_state_saving_rnn
    outputs, state = run(cell, state_saver=saver, **arguments)
    return {"outputs": outputs, "state": state, "saved": saver.saved}


def _two_ways(xp: Library, case: Case, cells: Any, given: Any, start: Any) -> Any:
    arguments = _arguments(xp, case, given)
    if start is not None:
        arguments |= {f"initial_state_{way}": start[way] for way in ("fw", "bw")}
    run = xp.static_bidirectional_rnn
    outputs, state_fw, state_bw = run(cells["fw"], cells["bw"], **arguments)
    return {"outputs": outputs, "state": {"fw": state_fw, "bw": state_bw}}


def _stack(xp: Library, case: Case, cells: Any, given: Any, start: Any) -> Any:
    layers, arguments = sorted(cells), _arguments(xp, case, given)
    for way in ("fw", "bw"):
        named = {f"cells_{way}": [cells[layer][way] for layer in layers]}
        if start is not None:
            states = [start[layer][way] for layer in layers]
            named[f"initial_states_{way}"] = states
        arguments = named | arguments
    outputs, fw, bw = getattr(xp, case["function"])(**arguments)
    return {"outputs": outputs, "state": {"fw": fw, "bw": bw}}


def _tensor_array(xp: Library, case: Case, cells: Any, given: Any, start: Any) -> Any:
    def value(argument):
        if not isinstance(argument, str) or argument[0] not in "$@":
            return argument
        name, *index = argument[1:].split(".")
        found = (given if argument[0] == "$" else known)[name]
        return found[int(index[0])] if index else found

    known = {"ta": xp.TensorArray(**_arguments(xp, case, {}))}
    for target, source, method, *arguments in case["script"]:
        values = [value(argument) for argument in arguments]
        known[target] = getattr(known[source], method)(*values)
    return {key: v for key, v in known.items() if not key.startswith(("ta", "_"))}


RUNS = {
    "raw_rnn": _raw_rnn,
    "dynamic_rnn": _one_way,
    "static_rnn": _one_way,
    "static_state_saving_rnn": _saving,
    "static_bidirectional_rnn": _two_ways,
    "stack_bidirectional_rnn": _stack,
    "stack_bidirectional_dynamic_rnn": _stack,
    "TensorArray": _tensor_array,
}


def run(
    xp: Library, case: Case, cells: Any, given: dict[str, Any], start: Any
) -> dict[str, Any]:
    """The results of a case by name; those that are None are left out.

    Of a TensorArray there are the size and the stack.
    """

    def leaf(_: str, value: Any) -> Any:
        if isinstance(value, xp.TensorArray):
            return {"size": xp.asarray(value.size(), "int32"), "stack": value.stack()}
        return xp.asarray(value)

    results = RUNS[case["function"]](xp, case, cells, given, start)
    return {k: trees.map_leaves(leaf, v) for k, v in results.items() if v is not None}
