"""Functions as files of TensorFlow Lite, by TensorFlow's converter."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._base.arguments import check_equal, check_functions, check_one_of
from .._base.errors import describe
from .._base.jax_internals import serialize_portable_artifact_str
from .._base.optional import import_optional
from .._base.run_time_checks import without_checks
from .._base.typing import Array, PyTree
from ._stablehlo import check_examples

_CALLER = "to_tflite"
# Old enough for TensorFlow to read, whose releases are behind those of JAX.
_STABLEHLO = "1.9.0"
_OPTIMIZE = (None, "float16", "int8")


def to_tflite(
    f: Callable[..., PyTree], *examples: PyTree, optimize: str | None = None
) -> bytes:
    """The program of `f` as a file of TensorFlow Lite, for arguments of these sizes.

    The file has one signature: it takes `input_0`, `input_1`, ..., which are
    `jax.tree.leaves(examples)`, and returns `output_0`, ..., the leaves of the result.
    Drivers are loops in it, also `raw_rnn` with `max_time` and those of `decode`.

    TensorFlow Lite has no random numbers, so that `decode.sample` cannot be written.
    Make bound cells outside of `f`, as `init` draws random numbers. With
    `jax_enable_x64` the loop of `jax.lax.scan` counts in int64, by which LiteRT 2.3
    fails to slice: write the file of `decode.beam_search` without.

    Args:
        f: A function of nests of arrays that can be compiled by `jax.jit`.
        *examples: Its arguments, or `jax.ShapeDtypeStruct`s in place of arrays.
        optimize: "float16" to store weights with 16 bits; "int8" to store the matrices
            with 8 bits, and multiply by integers where LiteRT can. None for float32.
            `tflite_deviation` measures what is lost.

    Returns:
        The file.

    Raises:
        TypeError: If `f` is not a function, or an argument holds something that has no
            shape and dtype.
        ValueError: If `optimize` is not known, a size is not fixed, or TensorFlow Lite
            lacks an operation of `f`.
        ImportError: If TensorFlow is missing: `pip install tensorflow-cpu`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn, jaxrnn.export
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
    check_functions(_CALLER, f=f)
    check_examples(_CALLER, examples)
    check_fixed_sizes(_CALLER, "examples", examples)
    what = "None, 'float16' or 'int8'"
    check_one_of(_CALLER, "optimize", optimize, _OPTIMIZE, what)
    exported = _exported(f, examples)
    tf = import_optional(_CALLER, "tensorflow", "tensorflow-cpu")
    try:
        converter = _converter(tf, exported)
        if optimize is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if optimize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())
    except Exception as error:  # Of a class of TensorFlow's own.
        raise ValueError(
            f"{_CALLER}: TensorFlow Lite lacks an operation of `f`; random numbers are "
            "one. `to_stablehlo` exports any function. TensorFlow's error: "
            f"{str(error)[:300]}"
        ) from error


def tflite_deviation(
    file: bytes, f: Callable[..., PyTree], *arguments: PyTree
) -> float:
    """The largest difference between a file of TensorFlow Lite and its function.

    Args:
        file: From `to_tflite` or `to_tflite_operators`.
        f: The function whose results the file is to compute; for
            `to_tflite_operators` one that returns the outputs alone.
        *arguments: Its arguments, arrays.

    Returns:
        The greatest absolute difference between numbers of the leaves of the results.

    Raises:
        ValueError: If file and function differ in the number of arguments or results,
            or in a shape.
        ImportError: If `ai_edge_litert` is missing.

    Source: `ai_edge_litert.interpreter.Interpreter`.
    """
    caller = "tflite_deviation"
    litert = import_optional(caller, "ai_edge_litert.interpreter")
    run = litert.Interpreter(model_content=file).get_signature_runner()
    names, leaves = _in_order(run.get_input_details()), jax.tree.leaves(arguments)
    must = f"hold {len(names)} arrays"
    check_equal(caller, "arguments", len(leaves), len(names), must)
    results = run(**dict(zip(names, map(np.asarray, leaves), strict=True)))
    got = [results[name] for name in _in_order(results)]
    want = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(f)(*arguments))]
    if [x.shape for x in got] != [x.shape for x in want]:
        of_file, of_f = (", ".join(map(describe, each)) for each in (got, want))
        raise ValueError(
            f"{caller}: `f` must return what `file` does, {of_file}, got {of_f}."
        )
    pairs = zip(got, want, strict=True)
    differences = [np.abs(x.astype(float) - y.astype(float)) for x, y in pairs]
    return float(max(map(np.max, differences), default=0.0))


def _in_order(names: Any) -> list[str]:
    """`output_2` before `output_10`."""
    return sorted(names, key=lambda name: (len(name), name))


def _exported(f: Callable[..., PyTree], examples: tuple) -> jax.export.Exported:
    """The program from the leaves of the arguments to those of the results."""
    leaves, structure = jax.tree.flatten(examples)
    run = without_checks(f)

    def program(*arguments: Array) -> list[Array]:
        return jax.tree.leaves(run(*structure.unflatten(arguments)))

    return jax.export.export(jax.jit(program), platforms=["cpu"])(*leaves)


def _converter(tf: Any, exported: jax.export.Exported) -> Any:
    """TensorFlow's converter, of a function that is the program as one operation."""
    program = serialize_portable_artifact_str(exported.mlir_module(), _STABLEHLO)
    xla = import_optional(_CALLER, "tensorflow.compiler.tf2xla.python.xla")

    def run(*inputs: Any) -> dict[str, Any]:
        outputs = xla.call_module(
            [inputs[i] for i in exported.module_kept_var_idx],
            version=9,  # Of the calling convention, for all programs without tokens.
            module=program,
            Sout=[leaf.shape for leaf in exported.out_avals],
            Tout=[leaf.dtype for leaf in exported.out_avals],
            platforms=["CPU"],
        )
        return {f"output_{i}": output for i, output in enumerate(outputs)}

    module = tf.Module()  # The file has a signature if a module holds the function.
    module.f = tf.function(run, autograph=False)
    leaves = enumerate(exported.in_avals)
    specs = [tf.TensorSpec(x.shape, x.dtype, f"input_{i}") for i, x in leaves]
    concrete = module.f.get_concrete_function(*specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)


def check_fixed_sizes(caller: str, name: str, examples: PyTree) -> None:
    """Raises ValueError for a size of 0, or one of `jax.export.symbolic_shape`."""
    for leaf in jax.tree.leaves(examples):
        if not all(isinstance(size, int) and size for size in leaf.shape):
            raise ValueError(
                f"{caller}: `{name}` must have fixed sizes above 0, got "
                f"{describe(leaf)}. `to_stablehlo` takes any."
            )
