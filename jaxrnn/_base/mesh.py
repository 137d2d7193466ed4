"""Reads meshes of devices, and axes of `shard_map`, from the types of arrays.

`sharding.py` moves arrays between devices.
"""

import contextlib
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from .errors import is_array
from .typing import PyTree


def meshes_of(tree: PyTree) -> list[AbstractMesh]:
    """The meshes found in the types of arrays, and the mesh of the context."""
    arrays = filter(is_array, jax.tree.leaves(tree))
    meshes = [jax.typeof(x).sharding.mesh for x in arrays]
    return [*meshes, jax.sharding.get_abstract_mesh()]


def platform_of(tree: PyTree = ()) -> str:
    """The target platform of a program on these arrays, such as "cpu" or "tpu".

    The platform is determined by the first mesh found in the arrays' types or, failing
    that, in the context. The devices of the mesh do not need to be present. If there is
    no mesh, the platform is JAX's default backend.
    """
    default = jax.default_backend()
    devices = (mesh.abstract_device for mesh in meshes_of(tree))
    # In JAX 0.10.0, the abstract device of a mesh has no attribute `platform`.
    return next((getattr(d, "platform", default) for d in devices if d), default)


def explicit_mesh_of(tree: PyTree) -> Any:
    """The first explicit mesh of the arrays or the context, or None."""
    explicit = (m for m in meshes_of(tree) if AxisType.Explicit in m.axis_types)
    return next(explicit, None)


def in_explicit_mesh_of(tree: PyTree) -> contextlib.AbstractContextManager:
    """The context of the explicit mesh of the arrays, for a scan over steps.

    Outside this context, JAX 0.12 fails to differentiate a scan that reads arrays
    divided over devices, or that multiplies by a kernel.
    """
    mesh = explicit_mesh_of(tree)
    if mesh is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh)


def explicit_axes_of(mesh: AbstractMesh) -> set[str]:
    """The names of the explicit axes of a mesh."""
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name for name, kind in types if kind == AxisType.Explicit}


def varying_axes(x: object) -> frozenset[str]:
    """The axes of `shard_map` over which a value may differ, according to its type."""
    return jax.typeof(x).mat.varying


def varying_like(xs: PyTree, tree: PyTree) -> PyTree:
    """Makes values vary over the axes of `shard_map` over which `xs` varies.

    Parameters are equal on all devices and become varying where they are combined with
    the inputs. If parameters become varying inside a loop, the backward pass sums their
    gradient over the devices at every step. If parameters become varying before the
    loop, their gradient is summed only once.
    """
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves(xs)))

    def vary(leaf: object) -> Any:
        missing = tuple(sorted(axes - varying_axes(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, tree)
