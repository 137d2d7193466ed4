"""The drivers and loop functions of the loops' goldens in JAX.

TensorFlow ran others, written for it: `README.md` says where they are.
"""

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn

from . import hand_cells, replay, trees

Case = dict[str, Any]
At = types.SimpleNamespace


def _plus_one(params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    return state + 1, state + 1


def _recorder(params: Any, inputs: Any, state: Any) -> tuple[Any, Any]:
    writes, value, count = state
    value_now = jnp.tanh(inputs + 0.5 * value)
    writes = writes.write(count, value + value)
    return inputs * value_now, (writes, value_now, count + 1)


hand_cells._STEPS.update(plus_one=_plus_one, recorder=_recorder)


def _at_time(at: At, table: jax.Array) -> jax.Array:
    last = table.shape[0] - 1
    index = jnp.minimum(at.time, last)
    return jax.lax.dynamic_index_in_dim(table, index, keepdims=False)


def _over(at: At) -> jax.Array:
    return at.time >= at.lengths


def _all_over(at: At) -> jax.Array:
    return jnp.all(_over(at))


def _argmax(array: jax.Array) -> jax.Array:
    return jnp.argmax(array, axis=1).astype(jnp.int32)


def _end_of_words(at: At) -> jax.Array:
    return _over(at) if at.first else _over(at) | (_argmax(at.output) == 1)


FINISHED = {
    "lengths": _over,
    "flags": lambda at: _at_time(at, at.flags),
    "python_bool": lambda at: False if at.first else _all_over(at),
    "true": lambda at: True if at.first else _all_over(at),
    "numpy": lambda at: np.asarray([False] * 3) if at.first else _over(at),
    "budget": lambda at: at.lengths <= 0 if at.first else at.loop <= 0,
    "end_of_words": _end_of_words,
    "int": lambda at: _over(at) if at.first else _over(at).astype(jnp.int32),
    "first_int": lambda at: _over(at).astype(jnp.int32) if at.first else _over(at),
    "list": lambda at: [at.time >= 4, at.time >= 2, at.time >= 3],
    "wrong_batch": lambda at: at.time >= jnp.asarray([1, 2], jnp.int32),
    "one": lambda at: at.time >= jnp.asarray([2], jnp.int32),
    "column": lambda at: jnp.expand_dims(_over(at), 1),
    "rank_changes": lambda at: False if at.first else _over(at),
}


def _read(at: At) -> Any:
    return jax.tree.map(lambda steps: _at_time(at, steps), at.inputs)


def _page(at: At) -> jax.Array:
    steps, *shape = at.inputs.shape
    if at.first:
        empty = jaxrnn.TensorArray(dtype=at.dtype, size=steps)
        at.memo["inputs_ta"] = empty.unstack(at.inputs)
    return jax.lax.cond(
        _all_over(at),
        lambda: jnp.zeros(shape, at.dtype),
        lambda: at.memo["inputs_ta"].read(at.time),
    )


def _history(at: At) -> jax.Array:
    now = _read(at)
    return now if at.first else now + at.loop.read(at.time - 1)


def _memory(at: At) -> jax.Array:
    now = _read(at)
    return now if at.first else now * at.loop.read(at.time % 2)


def _embed(at: At) -> jax.Array:
    return at.embedding[at.go if at.first else _argmax(at.output)]


def _tokens(at: At) -> jax.Array:
    return (at.go if at.first else _argmax(at.output))[:, None]


def _first(then: Callable[[At], Any], later: Callable[[At], Any]) -> Any:
    """A part that is one at the first call and another at all later ones."""
    return lambda at: then(at) if at.first else later(at)


INPUTS = {
    "read": _read,
    "page": _page,
    "history": _history,
    "memory": _memory,
    "zeros": lambda at: jnp.zeros((3, 1), at.dtype),
    "numpy": lambda at: np.full((3, 3), 0.5, at.dtype),
    "feedback": lambda at: at.go if at.first else at.output,
    "embed": _embed,
    "tokens": _tokens,
    "state": lambda at: jnp.tanh(at.start if at.first else at.state),
    "other_structure": _first(_read, lambda at: (_read(at),) * 2),
    "other_dtype": _first(_read, lambda at: _read(at).astype(jnp.float32)),
    "other_shape": _first(_read, lambda at: jnp.concatenate([_read(at)] * 2, 1)),
    "other_batch": _first(_read, lambda at: _read(at)[:2]),
    "batches_differ": lambda at: (
        jnp.zeros((3, 3), at.dtype),
        jnp.zeros((2, 3), at.dtype),
    ),
    "scalar": lambda at: (jnp.zeros((3, 3), at.dtype), jnp.zeros((), at.dtype)),
}


def _start(at: At) -> Any:
    return at.start


def _reset(at: At) -> jax.Array:
    return at.state * jnp.where(at.time % 2 == 0, 0, 1).astype(at.dtype)


STATES = {
    "keep": _first(_start, lambda at: at.state),
    "tripled": _first(_start, lambda at: jax.tree.map(lambda x: 3 * x, at.state)),
    "times_ten": _first(_start, lambda at: 10 * at.state),
    "scaled": _first(_start, lambda at: at.factor[None] * at.state),
    "reset": _first(_start, _reset),
    "first_structure": _first(lambda at: (at.start,) * 2, lambda at: at.state),
    "other_structure": _first(_start, lambda at: (at.state,) * 2),
    "other_dtype": _first(_start, lambda at: at.state.astype(jnp.float32)),
    "other_shape": _first(_start, lambda at: at.state[:, :2]),
    "none": _first(_start, lambda at: None),
}


def _zeros(*shape: int, dtype: Any = None) -> Callable[[At], jax.Array]:
    """A template: it has no batch axis."""
    return lambda at: jnp.zeros(shape, dtype or at.dtype)


def _pair(first: Callable[[At], Any], second: Callable[[At], Any]) -> Any:
    return lambda at: (first(at), second(at))


def _nest(at: At) -> Any:
    total, middle = jnp.sum(at.output, axis=1), at.output[:, 1:3]
    return {"a": (total, middle), "b": at.output + at.output}


def _outer(at: At) -> jax.Array:
    return jnp.einsum("bh,w->bhw", at.output, at.w)


def _sums(at: At) -> jax.Array:
    return jnp.sum(at.output, axis=1)


def _output(at: At) -> Any:
    return at.output


def _cast(part: Callable[[At], Any], dtype: Any) -> Callable[[At], Any]:
    return lambda at: part(at).astype(dtype)


_words = _pair(_output, lambda at: _argmax(at.output))
EMITS = {
    "output": _output,
    "doubled": _first(_zeros(3), lambda at: 2 * at.output),
    "weighted": _first(_zeros(2), lambda at: at.output @ at.w),
    "sums": _first(_zeros(), _sums),
    "state_sum": _first(_zeros(3), lambda at: at.state[0] + at.state[1]),
    "nest": _first(
        lambda at: {"a": _pair(_zeros(), _zeros(2))(at), "b": _zeros(4)(at)}, _nest
    ),
    "list": _first(
        lambda at: [_zeros(4)(at)] * 2, lambda at: [at.output, jnp.sin(at.output)]
    ),
    "nothing": lambda at: (),
    "tokens": _first(_zeros(dtype=jnp.int32), lambda at: _argmax(at.output)),
    "signs": _first(_zeros(4, dtype=bool), lambda at: at.output > 0),
    "narrower": _first(_zeros(4, dtype=jnp.float32), _cast(_output, jnp.float32)),
    "wider": _first(_zeros(4, dtype=jnp.float64), _cast(_output, jnp.float64)),
    "outer": _first(_zeros(4, 2), _outer),
    "state": _first(
        _pair(_zeros(4), _zeros(4)), lambda at: (at.state.c, at.state.h * at.output)
    ),
    "time": _first(_zeros(dtype=jnp.int32), lambda at: jnp.broadcast_to(at.time, (3,))),
    "ones": _first(_zeros(2), lambda at: jnp.ones((3, 2), at.dtype)),
    "numpy": _first(lambda at: np.zeros(4, at.dtype), _output),
    "words": _first(_pair(_zeros(4), _zeros(dtype=jnp.int32)), _words),
    "template_with_batch": _first(_zeros(3, 4), _output),
    "later_none": _first(_zeros(4), lambda at: None),
    "other_structure": _first(_zeros(4), lambda at: (at.output,) * 2),
    "list_for_tuple": _first(_pair(_zeros(4), _zeros(4)), lambda at: [at.output] * 2),
    "other_dtype": _first(_zeros(4), _cast(_output, jnp.float32)),
    "other_shape": _first(_zeros(4), lambda at: at.output[:, :2]),
    "scalar": _first(_zeros(), lambda at: jnp.sum(at.output)),
    "too_wide": _first(
        lambda at: None, lambda at: jnp.concatenate([at.output] * 2, axis=1)
    ),
    "numpy_int": _first(_zeros(4, dtype=jnp.int32), _output),
    "python_template": _first(lambda at: 0.0, _output),
}


def _empty(size: int, *shape: int, grows: bool = False) -> Callable[[At], Any]:
    return lambda at: jaxrnn.TensorArray(
        at.dtype, size, dynamic_size=grows, element_shape=shape
    )


def _times(at: At) -> Any:
    written = at.loop
    if at.first:
        written = jaxrnn.TensorArray(jnp.int32, size=6, element_shape=())
    return written.write(at.time, 10 + at.time)


def _with_sum(at: At) -> Any:
    total = at.loop["sum"] + at.output
    written = at.loop["all"].write(at.time - 1, at.output * total)
    return {"all": written, "sum": total}


def _deeper(at: At) -> Any:
    total, (left,) = at.loop["n"]
    return {"flag": ~at.loop["flag"], "n": (at.output + total / 2, [left - 1])}


def _scalars(at: At) -> Any:
    scale, count = at.loop
    return jnp.mean(at.output) + scale / 2, count + count


def _unseen(at: At) -> None:
    assert at.loop is None


def _writing(what: Callable[[At], Any], before: int = 1) -> Callable[[At], Any]:
    return lambda at: at.loop.write(at.time - before, what(at))


_lengths = lambda at: at.lengths
_room, _grows = _empty(6, 3, 4), _empty(0, 3, 4, grows=True)
LOOPS = {
    "none": _unseen,
    "none_seen": _unseen,
    "sum": _first(lambda at: at.sum, lambda at: at.output + at.loop),
    "nest": _first(lambda at: {"flag": np.True_, "n": (at.sum, [at.lengths])}, _deeper),
    "scalars": _first(lambda at: (at.scale, jnp.int32(1)), _scalars),
    "later_none": _first(lambda at: at.sum, lambda at: None),
    "budget": _first(_lengths, lambda at: at.loop - 1),
    "times": _times,
    "seen": _first(_grows, _writing(lambda at: at.state)),
    "outputs": _first(_room, _writing(_output)),
    "growing": _first(_grows, _writing(_output)),
    "growing_nest": _first(lambda at: {"all": _grows(at), "sum": at.sum}, _with_sum),
    "history": _first(_empty(6, 3, 3), _writing(_output, before=0)),
    "memory": _first(
        lambda at: jaxrnn.TensorArray(at.dtype, 2).unstack(at.memory),
        lambda at: at.loop,
    ),
    "four_results": lambda at: None,
    "six_results": lambda at: None,
    "other_structure": _first(_lengths, lambda at: (at.loop,) * 2),
    "other_dtype": _first(_lengths, lambda at: at.loop.astype(jnp.float32)),
    "other_shape": _first(_lengths, lambda at: jnp.concatenate([at.loop] * 2)),
    "int_to_float": _first(lambda at: 1, lambda at: 1.5),
    "none_then_int": _first(lambda at: None, lambda at: jnp.int32(7)),
    "none_then_float": _first(lambda at: None, lambda at: jnp.float32(0.5)),
}
_PARTS = (FINISHED, INPUTS, STATES, EMITS, LOOPS)
_NAMES = ("finished", "input", "state", "emit", "loop")


def loop_fn(case: Case, given: dict[str, Any], start: Any) -> Callable[..., Any]:
    """The loop function of a case, made of its parts."""
    known = given | {"start": start, "dtype": jnp.dtype(case["dtype"]), "memo": {}}
    parts = [
        table[case["loop"][name]] for table, name in zip(_PARTS, _NAMES, strict=True)
    ]

    def fn(time, output, state, loop_state):
        at = At(time=time, output=output, state=state, loop=loop_state, **known)
        at.first = output is None
        results = tuple(part(at) for part in parts)
        count = {"four_results": 4, "six_results": 6}.get(case["loop"]["loop"], 5)
        return (*results, None)[:count]

    return fn


def _state(case: Case, cell: Any, start: Any) -> Any:
    """The state to start from, with a TensorArray in front where the case has one."""
    dtype = jnp.dtype(case["dtype"])
    if start is None:
        return cell.zero_state(case["batch"], dtype)
    if not case["array_state"]:
        return start
    return (jaxrnn.TensorArray(dtype, 9, element_shape=start[0].shape), *start)


def _options(case: Case) -> dict[str, Any]:
    """The case's options, with dtypes for their names."""
    options = {key: replay.argument(value) for key, value in case["options"].items()}
    if options.get("dtype"):
        options["dtype"] = jnp.dtype(options["dtype"])
    return options


def _raw_rnn(case: Case, cell: Any, given: Any, start: Any, max_time: Any) -> Any:
    options = _options(case) | {"max_time": max_time}
    if "loop_fn" in options:
        return {"emit": jaxrnn.raw_rnn(cell, **options)[0]}
    is_cell = "not_a_cell" not in case["cells"]
    start = _state(case, cell, start) if is_cell else None
    emit_ta, state, loop = jaxrnn.raw_rnn(cell, loop_fn(case, given, start), **options)
    return {"emit": emit_ta, "state": state, "loop_state": loop}


def _arguments(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": jnp.dtype(case["dtype"])} | given | _options(case)


def _one_way(case: Case, cell: Any, given: Any, start: Any, max_time: Any) -> Any:
    arguments = _arguments(case, given)
    if start is not None:
        arguments["initial_state"] = _state(case, cell, start)
    outputs, state = getattr(jaxrnn, case["function"])(cell, **arguments)
    return {"outputs": outputs, "state": state}


class _Saver:
    """A state saver that keeps one more than it is given."""

    def __init__(self, states: dict[str, Any]):
        self._states, self.saved = states, {}

    def state(self, name: str) -> Any:
        return self._states[name]

    def save_state(self, name: str, value: Any) -> Any:
        self.saved[name] = 1 + value
        return self.saved[name]


def _saving(case: Case, cell: Any, given: Any, start: Any, max_time: Any) -> Any:
    arguments = given | _options(case)
    names = [name for _, name in trees.leaves(arguments["state_name"])]
    states = [leaf for _, leaf in trees.leaves(start)]
    saver = _Saver(dict(zip(names, states, strict=False)))
    run = jaxrnn.static_state_saving_rnn
    outputs, state = run(cell, state_saver=saver, **arguments)
    return {"outputs": outputs, "state": state, "saved": saver.saved}


def _two_ways(case: Case, cells: Any, given: Any, start: Any, max_time: Any) -> Any:
    arguments = _arguments(case, given)
    if start is not None:
        arguments |= {f"initial_state_{way}": start[way] for way in ("fw", "bw")}
    run = jaxrnn.static_bidirectional_rnn
    outputs, state_fw, state_bw = run(cells["fw"], cells["bw"], **arguments)
    return {"outputs": outputs, "state": {"fw": state_fw, "bw": state_bw}}


def _stack(case: Case, cells: Any, given: Any, start: Any, max_time: Any) -> Any:
    layers, arguments = sorted(cells), _arguments(case, given)
    for way in ("fw", "bw"):
        named = {f"cells_{way}": [cells[layer][way] for layer in layers]}
        if start is not None:
            states = [start[layer][way] for layer in layers]
            named[f"initial_states_{way}"] = states
        arguments = named | arguments
    outputs, fw, bw = getattr(jaxrnn, case["function"])(**arguments)
    return {"outputs": outputs, "state": {"fw": fw, "bw": bw}}


def _value(argument: Any, given: dict[str, Any]) -> Any:
    if not isinstance(argument, str) or argument[0] != "$":
        return argument
    name, *index = argument[1:].split(".")
    return given[name][int(index[0])] if index else given[name]


def _tensor_array(case: Case, cells: Any, given: Any, start: Any, limit: Any) -> Any:
    options = {"dtype": jnp.dtype(case["dtype"])} | _options(case)
    known = {"ta": jaxrnn.TensorArray(**options)}
    for target, source, method, *arguments in case["script"]:
        values = [_value(argument, given) for argument in arguments]
        known[target] = getattr(known[source], method)(*values)
    return {key: value for key, value in known.items() if not key.startswith("ta")}


_RUNS = {
    "raw_rnn": _raw_rnn,
    "dynamic_rnn": _one_way,
    "static_rnn": _one_way,
    "static_state_saving_rnn": _saving,
    "static_bidirectional_rnn": _two_ways,
    "stack_bidirectional_rnn": _stack,
    "stack_bidirectional_dynamic_rnn": _stack,
    "TensorArray": _tensor_array,
}


def _unpacked(value: Any) -> Any:
    if isinstance(value, jaxrnn.TensorArray):
        return {"size": jnp.asarray(value.size(), jnp.int32), "stack": value.stack()}
    return jnp.asarray(value)


def run(
    case: Case, cells: Any, given: dict[str, Any], start: Any, max_time: int | None
) -> dict[str, Any]:
    """The results of a case by name; those that are None are left out."""
    results = _RUNS[case["function"]](case, cells, given, start, max_time)
    return {
        key: trees.map_leaves(lambda _, leaf: _unpacked(leaf), part)
        for key, part in results.items()
        if part is not None
    }
