"""The shapes that tests of kernels share."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxrnn._kernels.work import Work

F32, BF16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)


@dataclasses.dataclass(frozen=True)
class Spec:
    """Sizes of sequences and of a cell.

    Attributes:
        batch: The number of rows.
        time: The number of steps.
        depth: The size of the inputs.
        units: The size of the state.
    """

    batch: int
    time: int
    depth: int
    units: int

    def __str__(self) -> str:
        return f"B{self.batch} T{self.time} D{self.depth} H{self.units}"


# To be interpreted: rows and steps that fill their tiles and blocks, and that do not.
SMALL = (Spec(4, 8, 3, 5), Spec(11, 13, 2, 4), Spec(1, 1, 1, 1), Spec(9, 3, 7, 16))

# To be lowered, compiled and explained.
LARGE = (
    Spec(16, 1024, 768, 768),
    Spec(64, 100, 256, 256),
    Spec(128, 50, 1024, 1024),
    Spec(1, 2000, 512, 512),
    Spec(16, 512, 2048, 2048),
)


def shapes(cell, batch, time, depth, dtype=F32):
    """The types of `(params, x, lengths, state)`."""
    x = jax.ShapeDtypeStruct((batch, time, depth), dtype)
    step = jax.ShapeDtypeStruct((batch, depth), dtype)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), step))
    state = jax.eval_shape(lambda: cell.zero_state(batch, dtype))
    return params, x, jax.ShapeDtypeStruct((batch,), jnp.int32), state


def work_of(cell, batch, time, depth, dtype):
    """The work of such a run."""
    params, _, _, state = shapes(cell, batch, time, depth, dtype)
    step = jax.ShapeDtypeStruct((batch, depth), dtype)
    return Work.of(cell, params, time, step, state)
