"""Runs a matrix memory in a published kernel, if `implementation` names its package.

The packages have kernels for the rules of some memories. A kernel accepts an initial
state, and starts from zeros if a segment id changes. The packages check which sizes and
dtypes a kernel supports. On a CPU, `jla` runs plain JAX, and `deltanet_tpu` interprets
its kernels. On the platform of its kernels, a package has no such fallback.

Like chunks, the kernels multiply values of steps that do not read each other by 0.
Unlike chunks (see `sequence.py`), they do not replace values that are not finite. A NaN
may therefore spoil all other steps of its row, even earlier steps and steps after
resets.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..._base.math import cast, widest_dtype
from ..._base.mesh import platform_of
from ..._base.typing import DType, Params, PyTree
from ..._cells.matrix.delta_rule import DeltaRule
from ..._cells.matrix.dplr_rule import DPLRRule
from ..._cells.matrix.linear_attention_rule import LinearAttentionRule
from ..._cells.matrix.rule import arithmetic_dtype
from ..._run import masking
from ..._run.run import Choice, Loop, Run
from ..many_steps import choose_many_steps
from .sequence import outputs_of, projected

# The names of a rule's kernels, by whether each key has its own decay, and by package.
# Subclasses of a rule have no kernel, because they may compute something else.
_KERNELS: dict[type, dict[bool, dict[str, str]]] = {
    DeltaRule: {
        False: {"jla": "gated_deltanet", "deltanet_tpu": "chunk_gdn"},
        True: {"jla": "kda", "deltanet_tpu": "chunk_kda"},
    },
    LinearAttentionRule: {
        False: {"jla": "simple_gla", "deltanet_tpu": "chunk_gla"},
        True: {"jla": "gla", "deltanet_tpu": "chunk_gla"},
    },
    DPLRRule: {True: {"jla": "rwkv7"}},
}

# For each package: its name for `pip`, the module, the platform of the kernels, and the
# first JAX version after 0.11.2 that the package does not support.
PACKAGES = {
    "jla": ("jax-linear-attention", "jla.ops", "gpu", (0, 11, 3)),
    "deltanet_tpu": ("deltanet-tpu", "deltanet_tpu", "tpu", (0, 12)),
}


def choose_kernel(cell: Any, params: Params, run: Run) -> Choice:
    """Chooses a kernel of the package that `run.implementation` names, or a scan.

    The scan's `reason` says why no kernel can run.

    Args:
        cell: A `MatrixMemoryCell`.
        params: The cell's parameters.
        run: All steps; only types are read.
    """
    asked: Any = run.implementation
    kernels = _KERNELS.get(type(cell.rule), {})
    name = kernels.get(getattr(cell.rule, "key_decay", True), {}).get(asked)
    if name is None:
        return Choice.scan(f"no kernel is known for {type(cell).__name__}")
    if reason := _why_refused(run):
        return Choice.scan(reason)
    pip, package, *_ = PACKAGES[asked]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        return Choice.scan(f"{error}. Run `pip install {pip}`")
    loop = functools.partial(_run_kernel, cell, name, _kernel(module, name, run))
    choice = choose_many_steps(asked, cell, loop, run)
    reason = choice.loop and _why_not_traced(choice.loop, params, run)
    return Choice.scan(reason) if reason else choice


def _why_refused(run: Run) -> str | None:
    """The reason why no kernel of the package runs these steps, or None."""
    asked: Any = run.implementation
    _, _, of_kernels, jax_end = PACKAGES[asked]
    platform, steps = platform_of(run.inputs), run.steps
    dtype = arithmetic_dtype(run.inputs, run.state)
    is_reset = steps.resets is not None and not steps.resets_to_zeros
    is_for_jax = (0, 11, 2) <= jax.__version_info__ < jax_end
    refusals = (
        (platform not in ("cpu", of_kernels), f"the platform is {platform!r}"),
        (dtype != jnp.float32, f"its kernels compute in float32, not in {dtype}"),
        (steps.returns_states, "its kernels return only the last state"),
        (is_reset, "its kernels reset states to zeros, not to `reset_state`"),
        (not is_for_jax, f"it requires JAX 0.11.2, and this is {jax.__version__}"),
    )
    return next((reason for is_so, reason in refusals if is_so), None)


def _kernel(module: Any, name: str, run: Run) -> Callable:
    """Returns a kernel of a package with options for the platform and the dtype."""
    if run.implementation == "jla":
        impl = "chunked" if platform_of(run.inputs) == "cpu" else "mosaic_gpu"
        return functools.partial(module.linear_attention, name, impl=impl)
    precision = "fp32" if _narrow_dtype(run) == jnp.float32 else "bf16"
    return functools.partial(getattr(module, name), precision=precision)


def _narrow_dtype(run: Run) -> DType:
    """The dtype of q, k and v; the kernels for GPUs support only 16 bits."""
    return widest_dtype(jax.tree.leaves(run.inputs)[:3])


def _run_kernel(
    cell: Any, name: str, kernel: Callable, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """Runs all steps in a kernel; returns `(outputs, state)`."""
    steps = run.steps
    rest, values = projected(cell, params, run)
    given = steps.to_batch_major(values)._asdict()
    given |= cast({name: given[name] for name in "qkv"}, _narrow_dtype(run))
    if name == "rwkv7":
        given["w"] = given.pop("g")
    state = cast(run.state, jnp.float32)
    if steps.resets is not None:
        resets = steps.to_batch_major(steps.resets)
        state = masking.zero_unless(~resets[:, 0], state)
        given["segment_ids"] = jnp.cumsum(resets, axis=1, dtype=jnp.int32)
    given |= {"initial_state": state, "output_final_state": True, "scale": 1.0}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        h, last = kernel(**given)
    h = steps.from_batch_major(h.astype(jnp.float32))
    outputs = steps.zero_finished(outputs_of(cell, params, h, rest, run))
    return outputs, cell.rule.stored(run.state, last)


def _why_not_traced(loop: Loop, params: Params, run: Run) -> str | None:
    """Returns the package's error for arrays of these sizes, or None."""

    def trace(params: Params, run: Run) -> None:
        results, pull = jax.vjp(loop, params, run)
        pull(results)  # In `shard_map`, some kernels fail only here.

    try:
        jax.eval_shape(trace, params, run)
    except (ValueError, NotImplementedError) as error:
        return str(error).rstrip(".")
    return None
