"""A function on a mesh of two devices, which must give the results of one device."""

import contextlib

import jax
import numpy as np
from compilers.hlo import collectives
from helpers import drawn_like
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from jaxrnn.testing._oracle import close, split_floats, weighted_sum

BATCH, DEPTH, UNITS = 4, 3, 2
F64 = np.dtype("float64")
TYPES = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}
# Arrays without rows. The first axis of all others is the rows, and is divided.
WHOLE = {"params", "table", "kernel"}


def state_of(cell, seed=1, rows=BATCH):
    """A random state of the cell in NumPy, `[rows, ...]`, which is on no device yet."""
    types = jax.eval_shape(lambda: cell.zero_state(rows, F64))
    return jax.device_get(drawn_like(types, seed))


def with_gradients(run, arrays):
    """`(gradients, results)` of `run(**arrays)`: the gradients of a weighted sum.

    The gradients are a list, one for each floating-point array of `arrays`.
    """
    floats, rebuild = split_floats(arrays)

    def loss(floats):
        results = run(**rebuild(floats))
        return weighted_sum(results), results

    return jax.grad(loss, has_aux=True)(floats)


def on_one_device(run, arrays):
    """`with_gradients` on one device, as NumPy arrays."""
    return jax.device_get(jax.jit(with_gradients, static_argnums=0)(run, arrays))


def placed_on_mesh(arrays, kind, layouts=None):
    """`(mesh, arrays)`: a mesh of two devices, and the arrays on it; see `on_mesh`."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(TYPES[kind],))
    layouts = {name: "divided" for name in arrays} | (layouts or {})
    layouts |= dict.fromkeys(WHOLE, "whole")

    whole, divided = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    shardings = {"divided": divided, "whole": whole}

    def put(nest, layout):
        if layout == "host":
            return nest
        place = lambda x: shardings[layout] if np.ndim(x) else whole
        return jax.device_put(nest, jax.tree.map(place, nest))

    return mesh, {name: put(nest, layouts[name]) for name, nest in arrays.items()}


def on_mesh(run, arrays, kind, told="context", layouts=None):
    """`with_gradients` on a mesh.

    Args:
        run: The function of the arrays.
        arrays: Nests of arrays by name.
        kind: A key of `TYPES`.
        told: How `run` knows the mesh: "context", with or ("eagerly") without `jit`;
            or "arrays", in which `jit` sees it.
        layouts: "divided", "whole" or "host", for the names that `WHOLE` does not tell.

    Returns:
        Arrays on the mesh.
    """
    mesh, placed = placed_on_mesh(arrays, kind, layouts)
    compiled = jax.jit(with_gradients, static_argnums=0)
    set_mesh = contextlib.nullcontext() if told == "arrays" else jax.set_mesh(mesh)
    with set_mesh:
        return (with_gradients if told == "eagerly" else compiled)(run, placed)


def on_mesh_with_collectives(run, arrays, kind):
    """`(results, kinds)`: those of `on_mesh`, and the collectives in loops, by name."""
    mesh, placed = placed_on_mesh(arrays, kind)
    with jax.set_mesh(mesh):
        lowered = jax.jit(with_gradients, static_argnums=0).lower(run, placed)
        program = lowered.compile()
        return program(placed), collectives(program.as_text())[0]


def check(run, arrays, kind, told="context", layouts=None):
    """Check that `on_mesh` equals `on_one_device`, and return what the mesh gave."""
    got = on_mesh(run, arrays, kind, told, layouts)
    close(got, on_one_device(run, arrays), F64)
    return got
