"""The parts of the loops' goldens in TensorFlow, by the names that the cases use."""

import dataclasses
from typing import Any

import numpy as np

from .. import trees
from .graphs import tf


@dataclasses.dataclass
class At:
    """One call of a loop function, and what its parts may use."""

    time: Any
    output: Any
    state: Any
    loop: Any
    start: Any
    given: dict[str, Any]
    dtype: tf.DType
    memo: dict[str, Any]

    @property
    def first(self) -> bool:
        """Whether this is the call before the first step."""
        return self.output is None

    def __getattr__(self, name: str) -> Any:
        """The argument or the value of this name."""
        return self.given[name]


def _each(fn, tree):
    return trees.map_leaves(lambda _, leaf: fn(leaf), tree)


def _row(table, time):
    return table[tf.minimum(time, table.shape[0] - 1)]


def _zeros(at, *shape, dtype=None):
    return tf.zeros(shape, dtype or at.dtype)


def _over(at):
    return at.time >= at.lengths


def _end_of_words(at):
    if at.first:
        return at.time >= at.lengths
    return tf.logical_or(tf.equal(tf.argmax(at.output, 1), 1), at.time >= at.lengths)


FINISHED = {
    "lengths": _over,
    "flags": lambda at: _row(at.flags, at.time),
    "python_bool": lambda at: False if at.first else tf.reduce_all(_over(at)),
    "true": lambda at: True if at.first else tf.reduce_all(_over(at)),
    "numpy": lambda at: np.zeros(3, bool) if at.first else _over(at),
    "budget": lambda at: (at.lengths if at.first else at.loop) <= 0,
    "end_of_words": _end_of_words,
    "int": lambda at: _over(at) if at.first else tf.cast(_over(at), tf.int32),
    "first_int": lambda at: tf.cast(_over(at), tf.int32) if at.first else _over(at),
    "list": lambda at: [at.time >= length for length in (4, 2, 3)],
    "wrong_batch": lambda at: at.time >= tf.constant([1, 2]),
    "one": lambda at: at.time >= tf.constant([2]),
    "column": lambda at: _over(at)[:, None],
    "rank_changes": lambda at: False if at.first else _over(at),
}


def _read(at):
    return _each(lambda x: _row(x, at.time), at.inputs)


def _page(at):
    if at.first:
        array = tf.TensorArray(at.dtype, size=at.inputs.shape[0])
        at.memo["inputs"] = array.unstack(at.inputs)
    return tf.cond(
        tf.reduce_all(_over(at)),
        lambda: tf.zeros(at.inputs.shape[1:], at.dtype),
        lambda: at.memo["inputs"].read(at.time),
    )


def _history(at):
    if at.first:
        return _read(at)
    return _read(at) + at.loop.read(at.time - 1)


def _memory(at):
    if at.first:
        return _read(at)
    return _read(at) * at.loop.read(at.time % 2)


INPUTS = {
    "read": _read,
    "page": _page,
    "history": _history,
    "memory": _memory,
    "zeros": lambda at: _zeros(at, 3, 1),
    "numpy": lambda at: tf.constant(np.full((3, 3), 0.5), at.dtype),
    "feedback": lambda at: at.go if at.first else at.output,
    "embed": lambda at: tf.gather(
        at.embedding, at.go if at.first else tf.argmax(at.output, 1)
    ),
    "tokens": lambda at: (
        at.go if at.first else tf.argmax(at.output, 1, output_type=tf.int32)
    )[:, None],
    "state": lambda at: tf.tanh(at.start if at.first else at.state),
    "other_structure": lambda at: _read(at) if at.first else (_read(at), _read(at)),
    "other_dtype": lambda at: _read(at) if at.first else tf.cast(_read(at), tf.float32),
    "other_shape": lambda at: (
        _read(at) if at.first else tf.concat([_read(at), _read(at)], 1)
    ),
    "other_batch": lambda at: _read(at) if at.first else _read(at)[:2],
    "batches_differ": lambda at: (_zeros(at, 3, 3), _zeros(at, 2, 3)),
    "scalar": lambda at: (_zeros(at, 3, 3), _zeros(at)),
}


def _tripled(at):
    return at.start if at.first else _each(lambda x: x * 3, at.state)


def _reset(at):
    if at.first:
        return at.start
    return tf.where(tf.equal(at.time % 2, 0), tf.zeros_like(at.state), at.state)


STATES = {
    "keep": lambda at: at.start if at.first else at.state,
    "tripled": _tripled,
    "times_ten": lambda at: at.start if at.first else at.state * 10,
    "scaled": lambda at: at.start if at.first else at.state * at.factor,
    "reset": _reset,
    "first_structure": lambda at: (at.start, at.start) if at.first else at.state,
    "other_structure": lambda at: at.start if at.first else (at.state, at.state),
    "other_dtype": lambda at: at.start if at.first else tf.cast(at.state, tf.float32),
    "other_shape": lambda at: at.start if at.first else at.state[:, :2],
    "none": lambda at: at.start if at.first else None,
}


def _emitting(template, emit):
    """A part that returns `template` (shapes, of a dtype or the case's) at first."""

    def part(at):
        if at.first:
            return trees.map_leaves(
                lambda _, leaf: tf.zeros(leaf.shape, leaf.dtype or at.dtype), template
            )
        return emit(at)

    return part


@dataclasses.dataclass
class Leaf:
    """A leaf of a template; no dtype is the case's."""

    shape: tuple[int, ...] = ()
    dtype: Any = None


def _words(at):
    return at.output, tf.argmax(at.output, 1, output_type=tf.int32)


def _later(first, later):
    return lambda at: first(at) if at.first else later(at)


EMITS = {
    "output": lambda at: at.output,
    "doubled": _emitting(Leaf((3,)), lambda at: at.output * 2),
    "weighted": _emitting(Leaf((2,)), lambda at: at.output @ at.w),
    "sums": _emitting(Leaf(), lambda at: tf.reduce_sum(at.output, 1)),
    "state_sum": _emitting(Leaf((3,)), lambda at: at.state[0] + at.state[1]),
    "nest": _emitting(
        {"b": Leaf((4,)), "a": (Leaf(), Leaf((2,)))},
        lambda at: {
            "b": at.output * 2,
            "a": (tf.reduce_sum(at.output, 1), at.output[:, 1:3]),
        },
    ),
    "list": _emitting(
        [Leaf((4,)), Leaf((4,))], lambda at: [at.output, tf.sin(at.output)]
    ),
    "nothing": lambda at: (),
    "tokens": _emitting(Leaf((), tf.int32), lambda at: _words(at)[1]),
    "signs": _emitting(Leaf((4,), tf.bool), lambda at: at.output > 0),
    "narrower": _emitting(
        Leaf((4,), tf.float32), lambda at: tf.cast(at.output, tf.float32)
    ),
    "wider": _emitting(
        Leaf((4,), tf.float64), lambda at: tf.cast(at.output, tf.float64)
    ),
    "outer": _emitting(Leaf((4, 2)), lambda at: at.output[:, :, None] * at.w),
    "state": _emitting(
        (Leaf((4,)), Leaf((4,))), lambda at: (at.state.c, at.output * at.state.h)
    ),
    "time": _emitting(
        Leaf((), tf.int32), lambda at: at.time * tf.ones_like(at.lengths)
    ),
    "ones": _emitting(Leaf((2,)), lambda at: tf.ones((3, 2), at.dtype)),
    "numpy": _emitting(Leaf((4,)), lambda at: at.output),
    "words": _emitting((Leaf((4,)), Leaf((), tf.int32)), _words),
    "template_with_batch": _emitting(Leaf((3, 4)), lambda at: at.output),
    "later_none": _emitting(Leaf((4,)), lambda at: None),
    "other_structure": _emitting(Leaf((4,)), lambda at: (at.output, at.output)),
    "list_for_tuple": _emitting(
        (Leaf((4,)), Leaf((4,))), lambda at: [at.output, at.output]
    ),
    "other_dtype": _emitting(Leaf((4,)), lambda at: tf.cast(at.output, tf.float32)),
    "other_shape": _emitting(Leaf((4,)), lambda at: at.output[:, :2]),
    "scalar": _emitting(Leaf(), lambda at: tf.reduce_sum(at.output)),
    "too_wide": lambda at: None if at.first else tf.concat([at.output, at.output], 1),
    "numpy_int": _emitting(Leaf((4,), tf.int32), lambda at: at.output),
    "python_template": _later(lambda at: 0.0, lambda at: at.output),
}


def _array(at, size, *shape, **kwargs):
    return tf.TensorArray(at.dtype, size=size, element_shape=shape, **kwargs)


def _times(at):
    if at.first:
        empty = tf.TensorArray(tf.int32, size=6, element_shape=())
        return empty.write(at.time, at.time + 10)
    return at.loop.write(at.time, at.time + 10)


def _seen(at):
    if at.first:
        return _array(at, 0, 3, 4, dynamic_size=True)
    return at.loop.write(at.time - 1, at.state)


def _outputs(at):
    if at.first:
        return _array(at, 6, 3, 4)
    return at.loop.write(at.time - 1, at.output)


def _growing(at):
    if at.first:
        return _array(at, 0, 3, 4, dynamic_size=True)
    return at.loop.write(at.time - 1, at.output)


def _growing_nest(at):
    if at.first:
        return {"sum": at.sum, "all": _growing(at)}
    total = at.loop["sum"] + at.output
    array = at.loop["all"].write(at.time - 1, total * at.output)
    return {"sum": total, "all": array}


def _keep_history(at):
    if at.first:
        return _array(at, 6, 3, 3)
    return at.loop.write(at.time, at.output)


def _keep_memory(at):
    if at.first:
        return tf.TensorArray(at.dtype, size=2).unstack(at.memory)
    return at.loop


def _nest(at):
    if at.first:
        return {"n": (at.sum, [at.lengths]), "flag": tf.constant(True)}
    total, [left] = at.loop["n"]
    flag = tf.logical_not(at.loop["flag"])
    return {"n": (total * 0.5 + at.output, [left - 1]), "flag": flag}


def _scalars(at):
    if at.first:
        return at.scale, tf.constant(1, tf.int32)
    scale, count = at.loop
    return scale * 0.5 + tf.reduce_mean(at.output), count * 2


LOOPS = {
    "none": lambda at: None,
    "none_seen": lambda at: None,
    "sum": _later(lambda at: at.sum, lambda at: at.loop + at.output),
    "nest": _nest,
    "scalars": _scalars,
    "later_none": _later(lambda at: at.sum, lambda at: None),
    "budget": _later(lambda at: at.lengths, lambda at: at.loop - 1),
    "times": _times,
    "seen": _seen,
    "outputs": _outputs,
    "growing": _growing,
    "growing_nest": _growing_nest,
    "history": _keep_history,
    "memory": _keep_memory,
    "four_results": lambda at: None,
    "six_results": lambda at: None,
    "other_structure": _later(lambda at: at.lengths, lambda at: (at.loop, at.loop)),
    "other_dtype": _later(
        lambda at: at.lengths, lambda at: tf.cast(at.loop, tf.float32)
    ),
    "other_shape": _later(
        lambda at: at.lengths, lambda at: tf.concat([at.loop, at.loop], 0)
    ),
    "int_to_float": _later(lambda at: 1, lambda at: 1.5),
    "none_then_int": _later(lambda at: None, lambda at: tf.constant(7)),
    "none_then_float": _later(lambda at: None, lambda at: tf.constant(0.5)),
}


def loop_fn(case: dict[str, Any], given: dict[str, Any], start: Any) -> Any:
    """The loop function of a case, made of its parts."""
    tables = {"finished": FINISHED, "input": INPUTS, "state": STATES}
    tables |= {"emit": EMITS, "loop": LOOPS}
    parts = [table[case["loop"][name]] for name, table in tables.items()]
    count = {"four_results": 4, "six_results": 6}.get(case["loop"]["loop"], 5)
    dtype, memo = tf.as_dtype(case["dtype"]), {}

    def fn(time, output, state, loop_state):
        at = At(time, output, state, loop_state, start, given, dtype, memo)
        return (*(part(at) for part in parts), None)[:count]

    return fn
