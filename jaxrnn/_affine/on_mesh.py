"""Affine cells on a mesh whose types tell how arrays are divided.

There the loops run inside of `shard_map`, each device with its rows and, if the kernels
are divided by columns, with its units: a step then gathers what a product multiplies,
and nothing else is exchanged in the loop. Before it kernels are gathered, to be divided
by gate. An update treats each row by itself; units are divided only if it treats each
of these by itself, too (`why_not_divided`).
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from .._base.sharding import as_varying_as, explicit_mesh_of, whole_on_explicit_mesh
from .._base.typing import Array, Params, PyTree
from .._time.steps import Steps
from .units import CellOfUnits, columns_apart, columns_joined, why_not_divided

_log = logging.getLogger("jaxrnn")

Run = Callable[[Any, Params, Array, PyTree, Steps], tuple[PyTree, PyTree]]


def run_on_mesh(
    run: Run, cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> tuple[PyTree, PyTree]:
    """`run(cell, params, xs, state, steps)`, each device of a mesh with its share.

    Args:
        run: Returns `(outputs, state)`; it closes over no arrays.
        cell: An `AffineCell`.
        params: Its parameters.
        xs: Inputs, `[batch, time, depth]` or `[time, batch, depth]`.
        state: The initial state, each leaf `[batch, size]`.
        steps: Which steps there are.
    """
    division = _division(cell, params, xs, state, steps)
    if division is None:
        return run(cell, whole_on_explicit_mesh(params), xs, state, steps)
    params = division.put(params, P())
    if division.units is not None:
        params = columns_apart(cell, params, xs.shape[-1])
    specs = division.specs(params, steps)
    args = division.put((params, xs, state, steps), specs)
    axis_names = {*names_of(division.rows), *names_of(division.units)}
    if not axis_names:
        return run(cell, *args)
    _, _, state_spec, _ = specs
    share = jax.shard_map(
        functools.partial(_run_share, run, cell, division.units),
        mesh=division.mesh,
        in_specs=specs,
        out_specs=(division.of_steps(1 - steps.axis), state_spec),
        axis_names=axis_names,
    )
    # Compiled: outside of jit JAX would compile parts of its transpose at each call.
    outputs, last = jax.jit(share, inline=True)(*args)
    # Divided as the initial state is, since a loop over segments carries it.
    return outputs, division.put(last, division.of_rows(0))


def _run_share(
    run: Run,
    cell: Any,
    units: Any,
    params: Params,
    xs: Array,
    state: PyTree,
    steps: Steps,
) -> tuple[PyTree, PyTree]:
    """What one device runs."""
    # Else the backward pass would sum their gradients over devices at every step.
    varying = params, xs, state, steps.restart_states
    params, xs, state, restart_states = as_varying_as(varying, varying)
    steps = steps.with_restart_states(restart_states)
    if units is None:
        return run(cell, params, xs, state, steps)
    params = columns_joined(cell, params, xs.shape[-1])
    return run(CellOfUnits(cell, units), params, xs, state, steps)


@dataclasses.dataclass(frozen=True)
class Division:
    """How the arrays of a run are divided.

    Attributes:
        mesh: The mesh.
        rows: The axes of the mesh that divide rows, as an entry of a `PartitionSpec`.
        units: Those that divide units, likewise; None if units are not divided.
    """

    mesh: Any
    rows: Any
    units: Any

    @property
    def shares(self) -> int:
        """The number of shares of the units."""
        return math.prod(self.mesh.shape[name] for name in names_of(self.units))

    def of_rows(self, axis: int) -> P:
        """The spec of arrays with rows along `axis`, and no units."""
        return P(*[None] * axis, self.rows)

    def of_steps(self, axis: int) -> P:
        """The spec of arrays of all steps, rows along `axis` and units along 2."""
        return P(*[None] * axis, self.rows, *[None] * (1 - axis), self.units)

    def specs(self, params: Params, steps: Steps) -> tuple:
        """The specs of `(params, xs, state, steps)`."""
        axis, state = 1 - steps.axis, P(self.rows, self.units)
        last = lambda x: P(*[None] * (x.ndim - 1), self.units) if x.ndim else P()
        of_params = jax.tree.map(last, params)
        restarts = steps.restarts and dataclasses.replace(
            steps.restarts,
            starts=self.of_rows(axis),
            restart_states=P(None, self.units),
        )
        steps = dataclasses.replace(
            steps,
            lengths=steps.lengths if steps.lengths is None else self.of_rows(0),
            longest=steps.longest if steps.longest is None else P(),
            stand_in=steps.stand_in and (self.of_rows(0), state),
            restarts=restarts,
            offset=P(),
        )
        return of_params, self.of_rows(axis), state, steps

    def put(self, tree: PyTree, specs: PyTree) -> PyTree:
        """The arrays, divided by specs that are a prefix of the tree."""

        def put(spec: P, part: PyTree) -> PyTree:
            sharding = NamedSharding(self.mesh, spec)
            return jax.tree.map(lambda x: jax.sharding.reshard(x, sharding), part)

        return jax.tree.map(put, specs, tree)


def _division(
    cell: Any, params: Params, xs: Array, state: PyTree, steps: Steps
) -> Division | None:
    """How types say that arrays are divided; None if they do not say so."""
    mesh, args = explicit_mesh_of((xs, params)), jax.tree.leaves((xs, params))
    entries = [entry for x in args for entry in jax.typeof(x).sharding.spec]
    if mesh is None or not any(entries):
        return None
    # JAX 0.10 cannot lower the gradient of a `shard_map` inside of another one.
    if AxisType.Manual in mesh.axis_types:
        return None
    rows = jax.typeof(xs).sharding.spec[1 - steps.axis]
    kernels = [x for x in jax.tree.leaves(params) if x.ndim == 2]
    columns = {jax.typeof(kernel).sharding.spec[1] for kernel in kernels} - {None}
    columns = [c for c in columns if not {*names_of(c)} & {*names_of(rows)}]
    division = Division(mesh, rows, columns[0] if len(columns) == 1 else None)
    if division.units is None:
        return division
    reason = why_not_divided(cell, params, state, division.shares)
    if reason is None:
        return division
    _log.debug("%r: each device runs all of its units: %s", cell, reason)
    return dataclasses.replace(division, units=None)


def names_of(entry: Any) -> tuple[str, ...]:
    """The names of axes in an entry of a `PartitionSpec`."""
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)
