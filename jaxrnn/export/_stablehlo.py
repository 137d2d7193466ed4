"""Functions as StableHLO, by `jax.export`."""

from collections.abc import Callable, Sequence

import jax

from .._base.arguments import as_count, check_functions
from .._base.errors import describe
from .._base.run_time_checks import without_checks
from .._base.typing import PyTree


def to_stablehlo(
    f: Callable[..., PyTree],
    *examples: PyTree,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    vjp_order: int = 0,
) -> bytes:
    """The program of `f` as bytes, which JAX runs without this package.

    `jax.export.deserialize(bytes).call(*arguments)` runs it, under `jit` and `vmap`
    too. Arguments and results have standard containers: dicts, lists and tuples. A
    named tuple becomes a tuple, `LSTMStateTuple(c, h)` the tuple `(c, h)`; any other
    node becomes the tuple of its children. The program takes no others: give it
    `tuple(state)`. Arrays that `f` closes over, such as the parameters of a bound cell,
    are part of the program.

    Args:
        f: A function of nests of arrays that can be compiled by `jax.jit`: with any
            driver, a `raw_rnn` or decoder with `max_time`.
        *examples: Its arguments, or `jax.ShapeDtypeStruct`s in place of arrays; sizes
            of `jax.export.symbolic_shape` stand for any size.
        platforms: Where the program runs.
        vjp_order: How many times it can be differentiated backward.

    Returns:
        The file: StableHLO, and the types of arguments and results.

    Raises:
        TypeError: If `f` is not a function, or an argument holds something that has no
            shape and dtype; if `vjp_order` is not an integer.
        ValueError: If `vjp_order` is negative, or a platform is not known.
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
    caller = "to_stablehlo"
    check_functions(caller, f=f)
    check_examples(caller, examples)
    vjp_order = as_count(caller, "vjp_order", vjp_order, least=0)
    structure = jax.tree.structure(examples)

    def run(*arguments: PyTree) -> PyTree:
        return _standard(f(*structure.unflatten(jax.tree.leaves(arguments))))

    program = jax.jit(without_checks(run))
    exported = jax.export.export(program, platforms=platforms)(*_standard(examples))
    return bytes(exported.serialize(vjp_order=vjp_order))


def _standard(tree: PyTree) -> PyTree:
    """The nest in standard containers, which can be loaded without this package."""
    if type(tree) is dict:
        return {key: _standard(value) for key, value in tree.items()}
    one_level = jax.tree_util.default_registry.flatten_one_level(tree)
    if tree is None or one_level is None:
        return tree
    children = map(_standard, one_level[0])
    return list(children) if type(tree) is list else tuple(children)


def check_examples(caller: str, examples: tuple) -> None:
    """Raises TypeError unless all leaves have a shape and a dtype."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(examples)
    for path, leaf in leaves:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            name = jax.tree_util.keystr(path[:1]) + jax.tree_util.keystr(path[1:])
            raise TypeError(
                f"{caller}: `examples{name}` must be an array or a "
                f"`jax.ShapeDtypeStruct`, got {describe(leaf)}."
            )
