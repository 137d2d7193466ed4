"""Export of functions to StableHLO, with `jax.export`."""

from collections.abc import Callable, Sequence

import jax

from .._base.arguments import as_count, check_functions
from .._base.errors import InvalidType, describe
from .._base.exporting import without_checks
from .._base.typing import PyTree


def to_stablehlo(
    f: Callable[..., PyTree],
    *examples: PyTree,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    vjp_order: int = 0,
) -> bytes:
    """Exports `f` as a serialized program that JAX can run without jaxrnn.

    `jax.export.deserialize(bytes).call(*arguments)` runs the program, also under `jit`
    and `vmap`. This function and `deserialize` both need the package `flatbuffers`. The
    only containers in arguments and results are dicts, lists and tuples: named tuples
    and other pytree nodes become plain tuples of their children, e.g.
    `LSTMStateTuple(c, h)` becomes `(c, h)`. The program does not accept the original
    types, so pass `tuple(state)` for an `LSTMStateTuple`. Arrays that `f` closes over,
    e.g. the parameters of a bound cell, are part of the program.

    Args:
        f: A function of nests of arrays that `jax.jit` can compile. It may call any
            driver, but `raw_rnn` and decoders need `max_time`.
        *examples: The arguments of `f`; `jax.ShapeDtypeStruct`s may replace arrays.
            Sizes from `jax.export.symbolic_shape` stand for any size.
        platforms: The platforms that can run the program.
        vjp_order: How many times the program can be differentiated in reverse mode.

    Returns:
        The bytes of the program, which contain StableHLO and the types of arguments and
        results.

    Raises:
        TypeError: If `f` is not a function, a leaf of an argument has no shape and
            dtype, or `vjp_order` is not an integer.
        ValueError: If `vjp_order` is negative, or a platform is unknown.
        ImportError: If the package `flatbuffers` is missing: `pip install flatbuffers`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
        >>> cell = jaxrnn.LSTMCell(4)
        >>> step = jax.ShapeDtypeStruct((1, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), step))
        >>> run = lambda x, n: jaxrnn.dynamic_rnn(bound, x, n, dtype=x.dtype)
        >>> b, t = jax.export.symbolic_shape("b, t")
        >>> x = jax.ShapeDtypeStruct((b, t, 3), jnp.float32)
        >>> n = jax.ShapeDtypeStruct((b,), jnp.int32)
        >>> program = jax.export.deserialize(jaxrnn.export.to_stablehlo(run, x, n))
        >>> arguments = jnp.ones((2, 5, 3), x.dtype), jnp.array([5, 2], n.dtype)
        >>> outputs, (c, h) = program.call(*arguments)
        >>> outputs.shape, h.shape
        ((2, 5, 4), (2, 4))

    Source: `jax.export`.
    """
    check_functions(f=f)
    check_examples(examples)
    vjp_order = as_count("vjp_order", vjp_order, least=0)
    structure = jax.tree.structure(examples)

    def run(*arguments: PyTree) -> PyTree:
        return _standard(f(*structure.unflatten(jax.tree.leaves(arguments))))

    program = jax.jit(without_checks(run))
    exported = jax.export.export(program, platforms=platforms)(*_standard(examples))
    return bytes(exported.serialize(vjp_order=vjp_order))


def _standard(tree: PyTree) -> PyTree:
    """Converts a nest to standard containers, which load without jaxrnn."""
    if type(tree) is dict:
        return {key: _standard(value) for key, value in tree.items()}
    one_level = jax.tree_util.default_registry.flatten_one_level(tree)
    if tree is None or one_level is None:
        return tree
    children = map(_standard, one_level[0])
    return list(children) if type(tree) is list else tuple(children)


def check_examples(examples: tuple) -> None:
    """Raises TypeError unless all leaves have a shape and a dtype."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(examples)
    for path, leaf in leaves:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            name = jax.tree_util.keystr(path[:1]) + jax.tree_util.keystr(path[1:])
            raise InvalidType(
                f"`examples{name}` must be an array or a "
                f"`jax.ShapeDtypeStruct`, got {describe(leaf)}."
            )
