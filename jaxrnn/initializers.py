"""Initializers that treat the parts of a cell's kernel separately.

In most cells, one kernel multiplies the inputs and the state, and computes several
gates. An initializer from `jax.nn.initializers` receives only the shape of the kernel.
The initializers of this module also know which rows multiply the inputs, and which
columns belong to which gate. Pass these initializers to a cell as `initializer`,
`kernel_initializer` or `bias_initializer`, or to a `Stage` as `kernel` and `bias`. By
default, TensorFlow's cells use TensorFlow's initializers.

`by_part` draws the rows for inputs and state separately, and `by_gate` the columns of
each gate. Both draw in float32 at least, and round to a narrower dtype.
`unit_forget_bias` and `chrono` initialize biases. `lecun_orthogonal` matches the
defaults of Flax's cells.

    from jaxrnn import initializers
    cell = jaxrnn.LSTMCell(
        128, forget_bias=0, initializer=initializers.lecun_orthogonal()
    )
"""

import dataclasses

import jax
import jax.numpy as jnp

from ._base.arguments import check_function, check_given
from ._base.errors import expect
from ._base.math import at_least_float32
from ._base.typing import Array, DType, Initializer, Key
from ._cells.fields import check_number
from ._cells.params import ParamSpec, PartInitializer, draw, glorot_uniform, zeros

__all__ = ["by_gate", "by_part", "chrono", "lecun_orthogonal", "unit_forget_bias"]


def by_part(
    inputs: Initializer, state: Initializer, bias: Initializer | None = None
) -> Initializer:
    """Returns an initializer that draws rows for inputs and for state separately.

    Peepholes have no rows, and use TensorFlow's Glorot uniform.

    Args:
        inputs: Draws the rows that multiply the inputs, `[depth, columns]`.
        state: Draws the rows that multiply the state, `[units, columns]`, and the
            kernels of projections.
        bias: Draws the biases of the cell, unless the cell has a `bias_initializer`.
            Default: the default of the cell.

    Raises:
        TypeError: If an argument is not a function.
        ValueError: When a kernel is created, if the cell does not specify which rows
            multiply the inputs. The cells of `jaxrnn.lite` do not specify these rows.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> from jax.nn.initializers import lecun_normal, orthogonal, zeros
        >>> from jaxrnn.initializers import by_gate, by_part
        >>> initializer = by_part(lecun_normal(), by_gate(orthogonal()))
        >>> cell = jaxrnn.LSTMCell(4, initializer=initializer)
        >>> params = cell.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> gate = params["kernel"][3:, :4]  # What the first gate reads of h.
        >>> bool(jnp.allclose(gate.T @ gate, jnp.eye(4), atol=1e-6))
        True
    """
    check_function("inputs", inputs)
    check_function("state", state)
    if bias is not None:
        check_function("bias", bias)
    return PartInitializer(_by_part, (inputs, state), bias)


def by_gate(initializer: Initializer) -> Initializer:
    """Returns an initializer that draws the columns of each gate from a separate key.

    Args:
        initializer: Draws one gate, `[rows, units]`, or `[units]` in a bias.

    Raises:
        TypeError: If `initializer` is not a function.
        ValueError: When a parameter is created, if the cell does not specify the number
            of gates with `Stage(blocks=...)`.
    """
    check_function("initializer", initializer)
    return PartInitializer(_by_gate, (initializer,))


def unit_forget_bias() -> Initializer:
    """Returns an initializer of LSTM biases, with 1 in the forget gate and 0 elsewhere.

    Pass the initializer to `LSTMCell` as the `bias` of `by_part`, and pass
    `forget_bias=0`, because the bias then stores the 1 that is otherwise added at each
    step. Use this initializer only if the bias has 4 blocks (see `jaxrnn.Stage`) in
    TensorFlow's order i, j, f, o. The blocks of `SLSTMCell` and `QRNNCell` have a
    different order. A bias whose number of blocks is not 4 is 0.

    Raises:
        ValueError: When a parameter is created, if it is not a bias.

    Source: Jozefowicz, Zaremba and Sutskever, ICML 2015.
    """
    return PartInitializer(_unit_forget_bias)


def chrono(max_time: float) -> Initializer:
    """Returns an initializer of biases for dependencies of up to `max_time` steps.

    Let `d` be uniform in `[1, max_time - 1]`. The number of blocks (see `jaxrnn.Stage`)
    selects the kind of cell:

    - A bias with 4 blocks i, j, f, o belongs to an LSTM. The bias is `log(d)` in the
      forget gate f, `-log(d)` in the input gate i, and 0 elsewhere. Pass
      `forget_bias=0`.
    - A bias with 2 blocks r, u belongs to a GRU. The bias is `log(d)` in the update
      gate u, and 0 elsewhere.
    - A bias with 1 block is 0.

    Do not use this initializer for cells whose blocks have another order, such as
    `SLSTMCell` and `MinGRUCell`.

    Args:
        max_time: The number of steps, at least 2.

    Raises:
        TypeError: If `max_time` is not a number.
        ValueError: If `max_time` is below 2. When a parameter is created, if it is not
            a bias, or does not have 1, 2 or 4 blocks.

    Source: arXiv:1804.11188.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn
        >>> from jax.nn.initializers import glorot_uniform
        >>> from jaxrnn.initializers import by_part, chrono
        >>> glorot = glorot_uniform()
        >>> initializer = by_part(glorot, glorot, bias=chrono(100))
        >>> cell = jaxrnn.LSTMCell(4, forget_bias=0, initializer=initializer)
        >>> params = cell.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> i, j, f, o = jnp.split(params["bias"], 4)
        >>> bool((f >= 0).all() and (i == -f).all())
        True
    """
    return PartInitializer(_chrono, (check_number("max_time", max_time, low=2),))


def lecun_orthogonal() -> Initializer:
    """Returns an initializer with the default distributions of Flax's cells.

    The rows that multiply the inputs are drawn from LeCun's normal distribution. The
    rows that multiply the state are orthogonal in each gate. Biases are zeros. Flax's
    LSTMs add no forget bias, so pass `forget_bias=0`. Flax's GRU corresponds to
    `CudnnCompatibleGRUCell`.
    """
    return by_part(_lecun_normal, by_gate(_orthogonal), zeros)


# These functions replace the closures that `jax.nn.initializers` returns, so that cells
# can be pickled, and equal cells share compiled programs.
def _lecun_normal(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    return jax.nn.initializers.lecun_normal()(key, shape, dtype)


def _orthogonal(key: Key, shape: tuple[int, ...], dtype: DType) -> Array:
    return jax.nn.initializers.orthogonal()(key, shape, dtype)


def _by_part(
    key: Key, spec: ParamSpec, dtype: DType, inputs: Initializer, state: Initializer
) -> Array:
    if len(spec.shape) < 2:
        return glorot_uniform(key, spec.shape, dtype)
    fix = "Pass one initializer for all rows, or `input_rows` in a custom `ParamSpec`."
    own = check_given("input_rows", spec.input_rows, fix, "set for `by_part`")
    rows, columns = spec.shape
    drawn = [jnp.zeros((0, columns), dtype)]
    pairs = zip(jax.random.split(key), (inputs, state), (own, rows - own), strict=True)
    for part_key, initializer, count in pairs:
        part = dataclasses.replace(spec, shape=(count, columns))
        if count:  # Some initializers reject empty shapes.
            drawn.append(_rounded(initializer, part_key, part, dtype))
    return jnp.concatenate(drawn)


def _by_gate(
    key: Key, spec: ParamSpec, dtype: DType, initializer: Initializer
) -> Array:
    fix = "Pass another initializer, or `blocks` in a custom `Stage` or `ParamSpec`."
    blocks = check_given("blocks", spec.blocks, fix, "set for `by_gate`")
    shape = (*spec.shape[:-1], spec.shape[-1] // blocks)
    one = dataclasses.replace(spec, shape=shape, blocks=1)
    keys = jax.random.split(key, blocks)
    drawn = [_rounded(initializer, each, one, dtype) for each in keys]
    return jnp.concatenate(drawn, axis=-1)


def _rounded(
    initializer: Initializer, key: Key, spec: ParamSpec, dtype: DType
) -> Array:
    """Draws in at least float32, as a QR decomposition needs, and rounds to `dtype`."""
    wide = at_least_float32(dtype)
    drawn = draw(initializer, key, spec, wide)
    return drawn if wide == dtype else jnp.asarray(drawn, dtype)


def _unit_forget_bias(key: Key, spec: ParamSpec, dtype: DType) -> Array:
    _check_is_bias("unit_forget_bias", spec)
    bias = jnp.zeros(spec.shape, dtype)
    if spec.blocks != 4:
        return bias
    i, j, f, o = jnp.split(bias, 4)
    return jnp.concatenate([i, j, jnp.ones_like(f), o])


def _chrono(key: Key, spec: ParamSpec, dtype: DType, max_time: float) -> Array:
    _check_is_bias("chrono", spec)
    fix = "Pass another initializer, or `blocks` in a custom `Stage` or `ParamSpec`."
    blocks = check_given("blocks", spec.blocks, fix, "set for `chrono`")
    expect(blocks in (1, 2, 4), "blocks", "be 1, 2 or 4 for `chrono`", blocks, fix)
    zero = jnp.zeros(spec.shape[-1] // blocks, dtype)
    real = jnp.finfo(dtype).dtype  # Biases of complex parameters have real values.
    times = jax.random.uniform(key, zero.shape, real, 1, max_time - 1)
    remember = jnp.log(times).astype(dtype)
    gates = {1: [zero], 2: [zero, remember], 4: [-remember, zero, remember, zero]}
    return jnp.concatenate(gates[blocks])


def _check_is_bias(name: str, spec: ParamSpec) -> None:
    """Raises ValueError if the initializer `name` draws anything but a vector."""
    fix = f"Pass `{name}` as the `bias` of `by_part`, or as `bias_initializer`."
    must = "initialize a bias that is a vector"
    expect(len(spec.shape) == 1, name, must, spec.shape, fix)
