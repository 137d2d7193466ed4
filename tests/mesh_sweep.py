"""The sweep over meshes: rows of public functions, their arguments in pairs, and a run.

A row names a public function or module. Its arguments are the parameters in its
signature. `cases` combines the values of the arguments such that every two values that
are allowed together occur in some case. `mesh_rows.py` and `mesh_decoders.py` have the
rows.
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from helpers import drawn
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxrnn
from jaxrnn import BasicRNNCell, FunctionCell, GRUCell, LSTMCell, MinGRUCell, TensorShape
from jaxrnn.testing._oracle import split_floats, weighted_sum

BATCH, DEPTH, UNITS = 4, 3, 2
MESHES = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}


def count(params, inputs, state, key=None):
    """A step with a counter for each row, which runs step by step."""
    counts, total = state
    total = jax.numpy.tanh(total + inputs @ params["w"])
    return total, (counts + 1.0, total)


def init_count(key, inputs, dtype):
    return {"w": jax.numpy.ones((inputs.shape[-1], UNITS), dtype)}


CELLS = {
    "affine": LSTMCell(UNITS),
    "scanned": FunctionCell(count, (TensorShape([]), UNITS), UNITS, init_count),
    "linear": MinGRUCell(UNITS),
    "basic": BasicRNNCell(UNITS),
}
SECOND = GRUCell(UNITS)


# The values of arguments.


@dataclasses.dataclass(frozen=True)
class Context:
    """What the values of the arguments depend on.

    Attributes:
        cell: The cell.
        time: The number of steps.
        time_major: Whether time is the first axis.
    """

    cell: Any
    time: int
    time_major: bool

    def draw(self, *shape, seed=0):
        return np.random.default_rng([seed, *shape]).normal(size=shape)

    def booleans(self, seed, p):
        draws = np.random.default_rng(seed).random(size=(BATCH, self.time))
        return draws < p

    def state(self, cell, seed=1, rows=BATCH):
        draw = lambda x: self.draw(rows, *x.shape[1:], seed=seed)
        zeros = jax.eval_shape(lambda: cell.zero_state(rows, np.float64))
        return jax.tree.map(draw, zeros)

    def params(self, cell, depth=DEPTH):
        step = jax.ShapeDtypeStruct((BATCH, depth), np.float64)
        return drawn(cell, step, step.dtype)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A nest of arrays, `make(context)`.

    Attributes:
        make: Returns the arrays.
        axes: "rows" for leaves `[batch, ...]`; "steps" for `[batch, time, ...]`, with
            the first two axes swapped if `time_major`; "time" for `[time, batch, ...]`;
            "copies" for arrays without rows.
    """

    make: Callable[[Context], Any]
    axes: str = "rows"

    def of(self, context):
        """The arrays, and the axis of their rows."""
        arrays = self.make(context)
        if self.axes == "steps" and context.time_major:
            return jax.tree.map(lambda x: np.swapaxes(x, 0, 1), arrays), 1
        return arrays, {"rows": 0, "steps": 0, "time": 1, "copies": None}[self.axes]


steps = functools.partial(Arrays, axes="steps")
copies = functools.partial(Arrays, axes="copies")


def lengths(context):
    return np.array([context.time, 0, 2, 1], np.int32)


def states(seed):
    """The states of the layers of a stack."""
    each = lambda c, cell, i: c.state(cell, seed + i)
    return Arrays(lambda c: [each(c, c.cell, 0), each(c, SECOND, 1)])


VALUES = {
    "initial_state": [Arrays(lambda c: c.state(c.cell, 1))],
    "initial_state_bw": [Arrays(lambda c: c.state(SECOND, 2))],
    "initial_state_fw": [Arrays(lambda c: c.state(c.cell, 1))],
    "initial_states_bw": [states(3)],
    "initial_states_fw": [states(1)],
    "implementation": ["xla"],
    "mask": [steps(lambda c: c.booleans(1, 0.6))],
    "parallel_iterations": [2],
    "reset_state": [Arrays(lambda c: c.state(c.cell, 4))],
    "resets": [steps(lambda c: c.booleans(2, 0.3))],
    "return_states": [True],
    "sequence_length": [Arrays(lengths)],
    "swap_memory": [True],
    "time_major": [True],
}

LEFT_OUT = {
    "dtype": "every case passes the dtype of the inputs",
    "name": "a name in profiles",
    "scope": "a name in profiles",
}

# Two arguments that exclude each other, and arguments that require another one.
EITHER = [{"mask", "sequence_length"}]
REQUIRES = {
    "reset_state": "resets",
    "sum_over_batch": "average_across_batch",
    "sum_over_timesteps": "average_across_timesteps",
}

# How a case is run, and what else its results depend on.
SURROUNDINGS = {
    # `jit` sees the mesh in the arrays, or in the context; or there is no `jit`.
    "mesh": ["of_arrays", "of_context", "without_jit"],
    # Where the arrays other than parameters and inputs are.
    "beside": ["divided", "copied", "host"],
}


_OF_THE_SWEEP = {"cell", "time", *SURROUNDINGS}


# Rows and their cases.


@dataclasses.dataclass(frozen=True)
class Row:
    """How the sweep calls a public function.

    Attributes:
        run: `run(context, **arguments)` returns the results.
        signatures: The callables that have the arguments as parameters.
        given: The arguments that every case passes, as `VALUES`.
        values: The values of arguments, instead of those of `VALUES`.
        left_out: Arguments without values, and why.
        factors: Further factors of the cases, such as `cell`, a name of `CELLS`, and
            `time`; or other levels of the factors in `SURROUNDINGS`.
        names: Names of arguments that no signature has.
        dtype: The dtype of the results, for the tolerance.
        is_differentiated: Whether the results are differentiated.
    """

    run: Callable[..., Any]
    signatures: tuple[Callable, ...]
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    values: Mapping[str, list] = dataclasses.field(default_factory=dict)
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    factors: Mapping[str, list] = dataclasses.field(default_factory=dict)
    names: frozenset[str] = frozenset()
    dtype: str = "float64"
    is_differentiated: bool = True

    @property
    def parameters(self):
        """The names of all arguments."""
        return parameters(*self.signatures) | self.names

    @property
    def arguments(self):
        """The values of each argument in the signature that a case may pass."""
        known = {**VALUES, **self.values}
        names = self.parameters - self.given.keys() - self.left_out.keys()
        return {name: known[name] for name in sorted(names) if name in known}

    @property
    def unknown(self):
        """The arguments with neither values nor a reason to leave them out."""
        explained = self.given.keys() | self.arguments.keys()
        explained |= LEFT_OUT.keys() | self.left_out.keys()
        return self.parameters - explained

    @functools.cached_property
    def cases(self):
        """Cases such that any two levels that are allowed together occur in one."""
        levels = {n: [None, *values] for n, values in self.arguments.items()}
        counts = {n: len(v) for n, v in {**levels, **self._others}.items()}
        return [self._named(case) for case in covering(counts, is_allowed)]

    @property
    def _others(self):
        return {"cell": ["affine"], "time": [5], **SURROUNDINGS, **self.factors}

    def _named(self, case):
        passed = {
            name: values[case[name] - 1]
            for name, values in self.arguments.items()
            if case[name]
        }
        how = {name: values[case[name]] for name, values in self._others.items()}
        return Case(self, passed, how)


def parameters(*functions):
    """The names of the functions' parameters, except `**kwargs`."""
    names = set()
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                names.add(name)
    return names - {"self"}


def is_allowed(case):
    """Whether the arguments that are present (not level 0) are allowed together."""
    present = {name for name, level in case.items() if level}
    absent = case.keys() - present
    return not any(pair <= present for pair in EITHER) and not any(
        name in present and other in absent for name, other in REQUIRES.items()
    )


def covering(counts, is_allowed):
    """Cases that contain every allowed pair of levels, by a greedy search.

    Args:
        counts: The number of levels of each factor.
        is_allowed: Whether a dict with the levels of some factors is allowed.
    """
    levels = [[(name, i) for i in range(n)] for name, n in counts.items()]
    both = itertools.combinations(levels, 2)
    pairs = [pair for a, b in both for pair in itertools.product(a, b)]
    missing = {frozenset(pair) for pair in pairs if is_allowed(dict(pair))}
    cases, in_order = [], [frozenset(pair) for pair in pairs]
    while missing:
        case = dict(next(pair for pair in in_order if pair in missing))
        for name in sorted(counts, key=lambda name: -counts[name]):
            if name in case:
                continue

            def gain(i, name=name):
                new = {frozenset([(name, i), other]) for other in case.items()}
                return len(new & missing), i

            allowed = [i for i in range(counts[name]) if is_allowed(case | {name: i})]
            case[name] = max(allowed, key=gain)
        missing -= {frozenset(p) for p in itertools.combinations(case.items(), 2)}
        cases.append(case)
    return cases


# A run.


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A row with values of its arguments.

    Attributes:
        row: The row.
        passed: The values of the arguments beyond `Row.given`.
        how: The level of each surrounding.
    """

    row: Row
    passed: Mapping[str, Any]
    how: Mapping[str, Any]

    def __str__(self):
        passed = {n: "..." if isinstance(v, Arrays) else v for n, v in self.passed.items()}
        return f"arguments {passed}, {dict(self.how)}"

    @functools.cached_property
    def context(self):
        default = any(
            p.default is True
            for function in self.row.signatures
            for name, p in inspect.signature(function).parameters.items()
            if name == "time_major"
        )
        time_major = self.passed.get("time_major", default)
        return Context(CELLS[self.how["cell"]], self.how["time"], time_major)

    def run(self, arrays):
        """The results of the row for the arrays of its arguments."""
        how = {n: self.how[n] for n in self.row.factors if n not in _OF_THE_SWEEP}
        return self.row.run(self.context, **self._split()[1], **arrays, **how)

    def arrays(self):
        """`(arrays, axes)`: the nests of arrays by argument, and the axes of rows."""
        made = {n: a.of(self.context) for n, a in self._split()[0].items()}
        return {n: a for n, (a, _) in made.items()}, {n: x for n, (_, x) in made.items()}

    def _split(self):
        everything = {**self.row.given, **self.passed}
        arrays = {n: v for n, v in everything.items() if isinstance(v, Arrays)}
        return arrays, {n: v for n, v in everything.items() if n not in arrays}

    @functools.cached_property
    def on_one_device(self):
        return jax.device_get(jax.jit(self.differentiated)(self.arrays()[0]))

    def differentiated(self, arrays):
        """The results, and the gradients of a weighted sum of them."""
        if not self.row.is_differentiated:
            return self.run(arrays)
        floats, rebuild = split_floats(arrays)

        def loss(floats):
            results = self.run(rebuild(floats))
            return weighted_sum(results), results

        return jax.grad(loss, has_aux=True)(floats)

    def on_mesh(self, kind):
        """The same on a mesh of two devices, with the rows divided over them."""
        mesh = jax.make_mesh((2,), ("data",), axis_types=(MESHES[kind],))
        arrays, axes = self.arrays()
        arrays = {n: self._put(mesh, n, a, axes[n]) for n, a in arrays.items()}
        run, is_set = self.differentiated, self.how["mesh"] != "of_arrays"
        with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
            run = run if self.how["mesh"] == "without_jit" else jax.jit(run)
            return jax.device_get(run(arrays))

    def _put(self, mesh, name, arrays, axis):
        beside = "divided" if name in self.row.given else self.how["beside"]
        if beside == "host":
            return arrays
        is_whole = axis is None or beside == "copied"

        def put(x):
            spec = P() if is_whole or not np.ndim(x) else P(*[None] * axis, "data")
            return jax.device_put(x, NamedSharding(mesh, spec))

        return jax.tree.map(put, arrays)
