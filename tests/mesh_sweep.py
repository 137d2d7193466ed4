"""The sweep over meshes: rows of public functions, their cases, and a run of a case.

A row names a public function or module. Its arguments are the parameters in its
signature. Its cases combine the values of the arguments such that every two values that
are allowed together occur in some case. `mesh_rows.py`, `mesh_modules.py` and
`mesh_decoders.py` have the rows, and `mesh_values.py` the values.
"""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from covering import covering
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from mesh_values import (
    CELLS,
    EITHER,
    LEFT_OUT,
    REQUIRES,
    SURROUNDINGS,
    VALUES,
    Arrays,
    Context,
)

from jaxrnn.testing._oracle import split_floats, weighted_sum

MESHES = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}
_OF_THE_SWEEP = {"cell", "time", *SURROUNDINGS}


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
        on_auto: The cases that run on automatic meshes too: "pairs" for all; "values"
            for the first cases in which every level occurs; "none".
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
    on_auto: str = "values"

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

    @property
    def levels(self):
        """The levels of each factor; level 0 of an argument is its default."""
        arguments = {n: [None, *values] for n, values in self.arguments.items()}
        return {**arguments, **self._how}

    @property
    def _how(self):
        return {"cell": ["affine"], "time": [5], **SURROUNDINGS, **self.factors}

    @functools.cached_property
    def design(self):
        """The numbers of the levels in each case."""
        return covering(tuple((n, len(v)) for n, v in self.levels.items()), is_allowed)

    @functools.cached_property
    def cases(self):
        """Cases such that every two levels that are allowed together occur in one."""
        return [self._named(case) for case in self.design]

    def cases_on(self, kind):
        """The numbered cases that run on a kind of mesh."""
        numbered = list(enumerate(self.cases))
        if kind == "explicit" or self.on_auto == "pairs":
            return numbered
        if self.on_auto == "none":
            return []
        some, missing = [], {level for case in self.design for level in case.items()}
        for i, case in enumerate(self.design):
            if missing & case.items():
                some.append(numbered[i])
                missing -= case.items()
        return some

    def _named(self, case):
        values = {n: levels[case[n]] for n, levels in self.levels.items()}
        passed = {n: values[n] for n in self.arguments if case[n]}
        return Case(self, passed, {n: values[n] for n in self._how})


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
        passed = {
            n: "..." if isinstance(v, Arrays) else v for n, v in self.passed.items()
        }
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
        axes = {n: axis for n, (_, axis) in made.items()}
        return {n: arrays for n, (arrays, _) in made.items()}, axes

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

    def on_mesh(self, kind, fetch=jax.device_get):
        """The same on a mesh of two devices, with the rows divided over them."""
        mesh = jax.make_mesh((2,), ("data",), axis_types=(MESHES[kind],))
        arrays, axes = self.arrays()
        arrays = {n: self._put(mesh, n, a, axes[n]) for n, a in arrays.items()}
        run, is_set = self.differentiated, self.how["mesh"] != "of_arrays"
        with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
            run = run if self.how["mesh"] == "without_jit" else jax.jit(run)
            return fetch(run(arrays))

    def _put(self, mesh, name, arrays, axis):
        beside = "divided" if name in self.row.given else self.how["beside"]
        if beside == "host":
            return arrays
        is_whole = axis is None or beside == "copied"

        def put(x):
            spec = P() if is_whole or not np.ndim(x) else P(*[None] * axis, "data")
            return jax.device_put(x, NamedSharding(mesh, spec))

        return jax.tree.map(put, arrays)
