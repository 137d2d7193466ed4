"""Runs a `DropoutWrapper` with the loop of its cell; draws masks before the loop."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..._base.cell_keys import run_key
from ..._base.mesh import platform_of
from ..._base.typing import Array, Params, PyTree
from ..._cells import fields
from ..._cells.affine import AffineCell, Stage, StageResult
from ..._cells.base import scope_name
from ..._cells.params import ParamSpec, Specs, zeros
from ..._cells.wrappers.dropout import DropoutWrapper, dropped, key_of_cell
from ..._run import masking
from ..._run.loops import Loops, register
from ..._run.run import Choice, Loop, Run

STEPS_AT_ONCE = 16  # A CPU draws the random numbers of this many steps at once.


def choose(wrapper: DropoutWrapper, params: Params, run: Run) -> Choice:
    """Chooses the cell's loop, or a scan if the loop cannot apply dropout to states."""
    cell: Any = wrapper.cell
    choice = cell.choose_loop(params, run)
    if run.key_of_step is None:
        return choice
    if wrapper.state_keep_prob < 1:
        # A loop can multiply the state by one mask for all steps. If the cell has
        # element-wise parameters, such as peepholes, the loop copies them and the mask
        # to each row, so all rows must share one mask.
        is_fixed = choice.scales_state and wrapper.variational_recurrent
        if not is_fixed or (wrapper.mask_per_row and cell.elementwise_specs()):
            return Choice.scan("the loop cannot apply dropout to the state")
        params = jax.eval_shape(functools.partial(_with_scales, wrapper), params, run)
        choice = CellWithScaledState(cell).choose_loop(params, run)
    return choice.within(functools.partial(_run_all, wrapper))


def _with_scales(wrapper: DropoutWrapper, params: Params, run: Run) -> Params:
    """Returns the parameters of a `CellWithScaledState`; `params` are the cell's."""
    inputs = masking.first_inputs(run.inputs, run.steps.axis)
    _, types = jax.eval_shape(wrapper.cell.apply, params, inputs, run.state)
    ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), types)
    scales = dropped(wrapper, "state", run.key_at(jnp.int32(0)), ones)
    if not wrapper.mask_per_row:  # Keep one row, which the loop may copy to all rows.
        scales = jax.tree.map(lambda x: x[:1] if x.ndim else x, scales)
    return {"cell": params, "scales": scales}


def _run_all(
    wrapper: DropoutWrapper, loop: Loop, params: Params, run: Run
) -> tuple[PyTree, PyTree]:
    """Runs all steps, with masks that are drawn before the loop."""
    steps = run.steps

    def drop(salt: str, tree: PyTree) -> PyTree:
        if getattr(wrapper, f"{salt}_keep_prob") == 1:
            return tree
        of_step = functools.partial(dropped, wrapper, salt)
        if not wrapper.variational_recurrent:
            return steps.from_time_major(_draw(of_step, run, steps.to_time_major(tree)))
        # The key is not mapped, so all steps share one draw.
        all_steps = jax.vmap(of_step, (None, steps.axis), steps.axis)
        return all_steps(run.key_at(jnp.int32(0)), tree)

    inputs = drop("input", run.inputs)
    inner = run.of_inner(inputs, run.state)
    inner = inner.map_keys(functools.partial(key_of_cell, wrapper))
    if wrapper.state_keep_prob < 1:
        params = _with_scales(wrapper, params, run)
    outputs, state = loop(params, inner)
    return steps.map_outputs(functools.partial(drop, "output"), outputs), state


def _draw(draw: Callable[..., PyTree], run: Run, xs: PyTree) -> PyTree:
    """Stacks `draw(key, x)` of all steps, where x is one step of `xs`.

    The leaves of `xs` are `[time, batch, ...]`.
    """
    ts = jnp.arange(run.steps.time, dtype=jnp.int32)

    def draw_step(step: tuple[Array, PyTree]) -> PyTree:
        t, x = step
        return draw(run.key_at(t), x)

    # Under `vmap`, generators other than threefry use the first key for all steps.
    if jax.random.key_impl(run_key(run.key_at(jnp.int32(0)))) != "threefry2x32":
        return jax.lax.map(draw_step, (ts, xs))
    # The numbers of a few steps fit into the caches of a CPU. A TPU draws the numbers
    # of all steps at once in an eighth of the cycles of a loop over a few steps.
    if platform_of(xs) == "cpu" and isinstance(run.steps.time, int):
        return jax.lax.map(draw_step, (ts, xs), batch_size=STEPS_AT_ONCE)
    return jax.vmap(draw_step)((ts, xs))


@fields.dataclass
class CellWithScaledState(AffineCell):
    """Runs `cell`, but multiplies each new state by `scales`.

    The parameters are `{"cell": ..., "scales": ...}`. The scales are an element-wise
    parameter, so a loop does not save them for each step.
    """

    cell: AffineCell
    enter: ClassVar[Any] = property(lambda self: self.cell.enter)
    name: ClassVar[Any] = property(lambda self: scope_name(self.cell))
    project_inputs: ClassVar[Any] = property(lambda self: self.cell.project_inputs)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the wrapped cell, of which the last also scales the state."""
        *others, last = self.cell.stages

        def scale(x: Array, scale: Array) -> Array:
            # Where the scale is 0, also replace infinity and NaN by 0.
            return jnp.where(scale > 0, x * scale, jnp.zeros((), x.dtype))

        def update(params: Params, z: Array, carry: PyTree) -> StageResult:
            output, state = last.update(params, z, carry)
            return output, jax.tree.map(scale, state, params["scales"])

        return (*others, dataclasses.replace(last, update=update))

    def elementwise_specs(self) -> Specs:
        """Specs of the cell's element-wise parameters and of the scales."""
        return self.cell.elementwise_specs() | {"scales": ParamSpec((), zeros)}

    def stage_params(self, params: Params) -> Params:
        """The parameters of the cell's stages, and the scales."""
        return self.cell.stage_params(params["cell"]) | {"scales": params["scales"]}


register(DropoutWrapper, Loops(choose))
