"""Export of functions to StableHLO and TensorFlow Lite."""

from collections.abc import Callable, Sequence

import jax

from .._base.arguments import as_count, check_function
from .._base.derivatives import without_checks
from .._base.errors import error_note, expect, leaf_name
from .._base.inputs import check_shaped
from .._base.jax_internals import serialize_portable_artifact_str
from .._base.modules import import_optional
from .._base.typing import Array, PyTree

# An old version of StableHLO, because TensorFlow adopts new versions later than JAX.
_STABLEHLO = "1.9.0"


def to_stablehlo(
    f: Callable[..., PyTree],
    *examples: PyTree,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    vjp_order: int = 0,
) -> bytes:
    """Exports `f` as a serialized program that JAX can run without jaxrnn.

    `jax.export.deserialize(bytes).call(*arguments)` runs the program, also under `jit`
    and `vmap`. This function and `deserialize` need the package `flatbuffers`. Arrays
    that `f` closes over, e.g. the parameters of a bound cell, are part of the program.

    Arguments and results of the program contain only dicts, lists and tuples. Other
    containers become plain tuples, e.g. `LSTMStateTuple(c, h)` becomes `(c, h)`. If an
    example was an `LSTMStateTuple`, pass `tuple(state)` to the program.

    Args:
        f: A function that `jax.jit` can compile. Arguments and results are nests of
            arrays. If `f` calls `raw_rnn` or `contrib.dynamic_decode`, pass a maximum
            number of steps to them, e.g. `max_time`.
        *examples: Example arguments of `f`, as arrays or `jax.ShapeDtypeStruct`s. An
            axis with a size from `jax.export.symbolic_shape` accepts any size.
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
    check_function("f", f)
    check_shaped("examples", examples)
    vjp_order = as_count("vjp_order", vjp_order, least=0)
    exported = _exported(f, examples, platforms)
    return bytes(exported.serialize(vjp_order=vjp_order))


def _exported(
    f: Callable[..., PyTree], examples: tuple, platforms: Sequence[str]
) -> jax.export.Exported:
    """Exports `f` with dicts, lists and tuples as the only containers."""
    structure = jax.tree.structure(examples)

    def run(*arguments: PyTree) -> PyTree:
        return _standard(f(*structure.unflatten(jax.tree.leaves(arguments))))

    program = jax.jit(without_checks(run))
    return jax.export.export(program, platforms=platforms)(*_standard(examples))


def _standard(tree: PyTree) -> PyTree:
    """Converts a nest to dicts, lists and tuples, which load without jaxrnn."""
    if type(tree) is dict:
        return {key: _standard(value) for key, value in tree.items()}
    one_level = jax.tree_util.default_registry.flatten_one_level(tree)
    if tree is None or one_level is None:
        return tree
    children = map(_standard, one_level[0])
    return list(children) if type(tree) is list else tuple(children)


def to_tflite(
    f: Callable[..., PyTree], *examples: PyTree, optimize: str | None = None
) -> bytes:
    """Exports `f` as a TensorFlow Lite file, for arguments shaped like `examples`.

    The file has one signature, whose inputs `input_0`, `input_1`, ... are the leaves of
    `examples`, in the order of `jax.tree.leaves`. The outputs `output_0`, `output_1`,
    ... are the leaves of the result. Loops such as `dynamic_rnn` are not unrolled in
    the file. `raw_rnn` requires `max_time`.

    TensorFlow Lite does not support random numbers. Therefore, `decode.sample` cannot
    be exported, and `f` must not call a cell's `init`. Disable `jax_enable_x64`.
    Otherwise, LiteRT 2.3 fails, because it cannot slice with the int64 loop counter of
    `jax.lax.scan`.

    Args:
        f: A function that `jax.jit` can compile. Arguments and results are nests of
            arrays.
        *examples: Example arguments of `f`, as arrays or `jax.ShapeDtypeStruct`s.
        optimize: How to compress the weights. None, the default, leaves the weights
            unchanged. "float16" stores the weights in 16 bits. "int8" stores matrices
            in 8 bits, and multiplies them as integers where LiteRT supports products of
            integers. Run the file on your data to measure the loss in precision.

    Returns:
        The bytes of the TensorFlow Lite file.

    Raises:
        TypeError: If `f` is not a function, or a leaf of an argument has no shape and
            dtype.
        ValueError: If `optimize` is unknown, or a size is not fixed.
        ImportError: If TensorFlow is missing: `pip install tensorflow-cpu`.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, jaxrnn, jaxrnn.export
        >>> cell = jaxrnn.GRUCell(4)
        >>> step = jax.ShapeDtypeStruct((1, 3), jnp.float32)
        >>> bound = cell.bind(cell.init(jax.random.key(0), step))
        >>> run = lambda x: jaxrnn.dynamic_rnn(bound, x, dtype=x.dtype)
        >>> x = jax.ShapeDtypeStruct((2, 5, 3), jnp.float32)
        >>> file = jaxrnn.export.to_tflite(run, x)  # doctest: +SKIP
        >>> from ai_edge_litert.interpreter import Interpreter  # doctest: +SKIP
        >>> interpreter = Interpreter(model_content=file)  # doctest: +SKIP
        >>> run = interpreter.get_signature_runner()  # doctest: +SKIP
        >>> results = run(input_0=np.ones((2, 5, 3), np.float32))  # doctest: +SKIP
        >>> outputs, state = results["output_0"], results["output_1"]  # doctest: +SKIP

    Source: `tf.lite.TFLiteConverter`, over `jax.export`.
    """
    check_function("f", f)
    check_shaped("examples", examples)
    check_fixed_sizes("examples", examples)
    choices = (None, "float16", "int8")
    expect(optimize in choices, "optimize", "be None, 'float16' or 'int8'", optimize)
    exported = _exported(f, examples, ["cpu"])
    tf = import_optional("tensorflow", "tensorflow-cpu")
    xla = import_optional("tensorflow.compiler.tf2xla.python.xla", "tensorflow-cpu")
    program = serialize_portable_artifact_str(exported.mlir_module(), _STABLEHLO)

    def run(*inputs: object) -> dict[str, Array]:
        """Runs the program as one operation."""
        outputs = xla.call_module(
            [inputs[i] for i in exported.module_kept_var_idx],
            version=9,  # This calling convention has no token arguments.
            module=program,
            Sout=[leaf.shape for leaf in exported.out_avals],
            Tout=[leaf.dtype for leaf in exported.out_avals],
            platforms=["CPU"],
        )
        return {f"output_{i}": output for i, output in enumerate(outputs)}

    note = (
        "Raised while TensorFlow converted `f`. For random numbers and other "
        "operations that TensorFlow Lite lacks, use `to_stablehlo`."
    )
    with error_note(note):
        module = tf.Module()  # Without a module, the file would have no signature.
        module.f = tf.function(run, autograph=False)
        specs = [
            tf.TensorSpec(leaf.shape, leaf.dtype, f"input_{i}")
            for i, leaf in enumerate(exported.in_avals)
        ]
        concrete = module.f.get_concrete_function(*specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
        if optimize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if optimize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())


def check_fixed_sizes(name: str, examples: PyTree) -> None:
    """Raises ValueError for a size that is 0 or symbolic."""
    for path, leaf in jax.tree.leaves_with_path(examples):
        is_fixed = all(isinstance(size, int) and size for size in leaf.shape)
        fix = "For other sizes, use `to_stablehlo`."
        expect(is_fixed, leaf_name(name, path), "have fixed sizes above 0", leaf, fix)
