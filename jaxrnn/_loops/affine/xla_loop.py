"""Runs an affine cell over sequences in an XLA loop, with fast derivatives.

This module supports derivatives of any order. When JAX differentiates a scan, it saves
every gate of every step, and adds to the gradient of each kernel at every step. Here,
`forward` saves only the matrix products `zs` and the states. The tangent has two parts:

* `_push_products` computes how parameters and inputs contribute to the tangents of the
  products. Each term is computed for all steps at once. JAX transposes the term to one
  large product or sum, which is **the gradient of a kernel, a bias or the inputs**.
* The loop of `push_forward` propagates only the tangent of the state, through the
  element-wise updates and the recurrent part of a kernel. JAX transposes this loop to a
  loop that runs backward and computes the cotangents of the products.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ..._base.derivatives import in_reverse
from ..._base.errors import is_array
from ..._base.math import cast_like, is_perturbed, widened, widest_dtype
from ..._base.mesh import platform_of
from ..._base.products import dot, dot_with_tangent, plus_bias
from ..._base.sharding import broadcast_first, zeros_like
from ..._base.trees import with_structure
from ..._base.typing import Array, DType, Params, PyTree
from ..._run import masking
from ..._run.masking import Steps
from ..._run.memory import RESIDUALS
from ..._run.run import Run
from ..._run.scans import named
from .few_steps import are_few_vectors
from .ragged_scan import ragged_scan

if TYPE_CHECKING:
    from ..._cells.affine import AffineCell, Stage

# The matrix products of the inputs are computed before the loop only if there are few
# rows, and not too many rows times steps, because the products of all steps take
# memory. On a CPU, this saves up to half of the time if the inputs are wide. If they
# are narrow or the steps are few, it would cost up to a third more time, because the
# input kernel is copied.
FEW_ROWS = 8
FEW_ROWS_ON_CPU = 64
FEW_ROWS_OVER_TIME = 4096
LEAST_DEPTH, LEAST_TIME = 128, 16  # On a CPU.


Product: TypeAlias = Callable[[int, "Stage", PyTree, Array, DType], Array]
"""`product(k, stage, inputs, operand, dtype)` returns the z of stage k."""


class Primals(NamedTuple):
    """The differentiable inputs of a run, or their tangents or cotangents.

    Attributes:
        product_params: The parameters of each stage's product,
            `{"kernel": [rows, columns], "bias": [columns]}`. The first rows of a kernel
            multiply the inputs, if the stage reads them. A stage without a bias has no
            "bias". `push_forward` splits the kernels; see `_split_kernels`.
        elementwise: The parameters that the element-wise updates read.
        xs: The inputs, `[time, batch, depth]`. In the result of `primals_of`, they have
            the layout of the run, which may be `[batch, time, depth]`.
        state: The initial state, each leaf `[batch, ...]`.
        reset_state: The state to which each row is reset, each leaf `[batch, ...]`;
            None if there are no resets.
    """

    product_params: list[Params]
    elementwise: Params
    xs: Array
    state: PyTree
    reset_state: PyTree


@dataclasses.dataclass(frozen=True)
class AffineLoop:
    """XLA's loop over whole sequences.

    Attributes:
        cell: The cell.
        only_reverse: Whether the cell has a derivative only in reverse mode.
    """

    cell: "AffineCell"
    only_reverse: bool = False

    def run(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """Runs all steps; returns the same `(outputs, state)` as a scan.

        Args:
            params: The cell's parameters.
            run: Inputs `[batch, time, depth]`, or `[time, batch, depth]` if
                `steps.axis` is 0, and the initial state, each leaf `[batch, ...]`. If
                `steps.returns_states`, the outputs are pairs `(output, new_state)`.
        """
        primals, steps = primals_of(self.cell, params, run)
        primals = primals._replace(xs=steps.to_time_major(primals.xs))
        push = functools.partial(self.push_forward, vmap_size=run.vmap_size)
        run_all = with_tangent_rule(self.forward, push)
        run_all = in_reverse(run_all) if self.only_reverse else run_all
        outputs, last = run_all(primals, steps.time_first())
        return steps.from_time_major(outputs), last

    def forward(
        self, primals: Primals, steps: Steps, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Runs all steps; returns `(outputs, state, saved)`.

        `saved` contains `(zs, state)` of each step, `[time, batch, ...]`: the products
        of the stages, and the state before the step.
        """
        if not save:  # The run is not differentiated.
            steps = dataclasses.replace(steps, stand_in=None)
        platform = platform_of((primals.xs, primals.state))
        product, xs, steps = _choose_product(
            self.cell, primals, steps, platform == "cpu"
        )
        stages = functools.partial(self.cell.run_stages, product, primals.elementwise)
        if not save and platform == "tpu":
            first_inputs = jax.tree.map(lambda x: x[0], xs)
            masked = jax.eval_shape(stages, first_inputs, primals.state)[:2]
            steps = _with_wide_lengths(steps, masked)

        def step(t: Array, state: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
            state, output, saved = steps.run_step(
                stages, t, inputs, state, primals.reset_state
            )
            return state, (output, saved if save else ())

        skipped = None
        if save and steps.steps_to_run is not None:
            # Derivatives also read the residuals of skipped steps, which must be
            # finite. So the residuals of step 0 take their place.
            first_inputs = jax.tree.map(lambda x: x[0], xs)
            _, (output, saved) = step(jnp.int32(0), primals.state, first_inputs)
            skipped = jax.tree.map(zeros_like, output), saved
        state, (outputs, saved) = ragged_scan(
            step, primals.state, xs, steps.steps_to_run, skipped=skipped
        )
        return outputs, state, saved

    def push_forward(
        self,
        primals: Primals,
        steps: Steps,
        saved: PyTree,
        tangents: Primals,
        vmap_size: int = 1,
    ) -> tuple[PyTree, PyTree]:
        """Computes the tangents of `(outputs, state)`, linear in `tangents`.

        Args:
            primals: The primals of the run.
            steps: The steps of the run.
            saved: The values that `forward` saved.
            tangents: The tangents of the primals. A zero tangent is a symbolic zero or
                None.
            vmap_size: See `Run`.
        """
        split = functools.partial(_split_kernels, self.cell, primals.xs.shape[-1])
        products = split(primals.product_params)
        d_products = split(tangents.product_params)
        # The inputs of finished rows do not affect the result, but must be finite.
        xs = steps.zero_finished(primals.xs)
        primals = primals._replace(product_params=products, xs=xs)
        tangents = tangents._replace(product_params=d_products)
        d_zs = self._push_products(primals, saved, tangents, vmap_size)

        # Each step casts a float32 copy of the reset states' tangents, so that the
        # transpose sums over steps in float32.
        d_reset_state = _dense(primals.reset_state, tangents.reset_state)
        wide = widened(d_reset_state)
        push_update = _pushed_update(primals, tangents.elementwise)

        # This step masks tangents as `Steps.run_step` masks values. The masks of all
        # steps are computed before the scan: if each step compared its index with the
        # lengths, a GPU would launch a tenth more kernels.
        def step(t: Array, d_state: PyTree, scanned: PyTree) -> tuple[PyTree, PyTree]:
            (zs, state), d_zs, resets, unfinished = scanned
            d_before = d_state
            if resets is not None:
                d_reset = cast_like(d_reset_state, wide)
                d_before = masking.select(~resets, d_state, d_reset)
            enter = lambda state: tuple(self.cell.enter(state))
            (_, carry), (d_operand, d_carry) = jax.jvp(enter, (state,), (d_before,))
            for k, stage in enumerate(self.cell.stages):
                d_z = dot(d_operand, products[k]["operand"], zs[k].dtype)
                d_z = d_z if d_zs[k] is None else d_zs[k] + d_z
                pushed = push_update(stage, (zs[k], carry), (d_z, d_carry))
                (_, carry), (d_operand, d_carry) = pushed
            d_output, d_new_state = d_operand, with_structure(d_state, d_carry)
            if unfinished is not None:
                d_new_state = masking.select(unfinished, d_new_state, d_state)
                d_output = masking.zero_unless(unfinished, d_output)
            outputs = (d_output, d_new_state) if steps.returns_states else d_output
            return d_new_state, outputs

        d_state = _dense(primals.state, tangents.state)
        scanned = saved, d_zs, steps.resets, steps.unfinished_steps()
        d_state, d_outputs = ragged_scan(
            step, d_state, scanned, steps.steps_to_run, save_inputs_only=True
        )
        return d_outputs, d_state

    def _push_products(
        self, primals: Primals, saved: PyTree, tangents: Primals, vmap_size: int
    ) -> list[Array | None]:
        """Computes how parameters and inputs contribute to the tangent of each z.

        The contribution is computed for all steps at once; None means zero. The
        backward pass recomputes the operands of the products instead of reading saved
        operands.
        """

        def operands(zs: list, state: PyTree) -> list[Array]:
            operand, carry = self.cell.enter(state)
            found = [operand]
            for stage, z in zip(self.cell.stages[:-1], zs, strict=False):
                operand, carry = stage.update(primals.elementwise, z, carry)
                found.append(operand)
            return found

        of_stage = functools.partial(
            _product_tangent, vmap_size, primals.xs, tangents.xs
        )
        numbers = range(len(self.cell.stages))
        d_added: list = [None] * len(numbers)
        if is_perturbed(tangents.xs):
            d_added = [self.cell.added_inputs(k, tangents.xs) for k in numbers]

        @jax.checkpoint
        def of_stages() -> list[Array | None]:
            given = d_added, saved[0], jax.vmap(operands)(*saved)
            return list(
                map(of_stage, *given, primals.product_params, tangents.product_params)
            )

        return of_stages()


def primals_of(cell: "AffineCell", params: Params, run: Run) -> tuple[Primals, Steps]:
    """Splits a run into primals, which can be differentiated, and steps."""
    params = cell.stage_params(params)
    primals = Primals(
        product_params=[stage.product_params(params) for stage in cell.stages],
        elementwise={name: params[name] for name in cell.elementwise_specs()},
        xs=run.inputs,
        state=run.state,
        reset_state=run.reset_state,
    )
    return primals, run.steps


def with_tangent_rule(forward: Callable, push_forward: Callable) -> Callable:
    """Returns `run(primals, steps) -> (outputs, state)` with a rule for derivatives.

    Args:
        forward: `forward(primals, steps, save) -> (outputs, state, saved)`.
        push_forward: `push_forward(primals, steps, saved, tangents)` returns the
            tangents of `(outputs, state)`.
    """
    run = jax.custom_jvp(lambda *args: forward(*args, save=False)[:2])

    def tangent(args: tuple, d_args: tuple) -> tuple[tuple, tuple]:
        *results, saved = forward(*args, save=True)
        saved = named(RESIDUALS, saved)
        return tuple(results), push_forward(*args, saved, d_args[0])

    run.defjvp(tangent, symbolic_zeros=True)
    return run


def _choose_product(
    cell: "AffineCell", primals: Primals, steps: Steps, on_cpu: bool
) -> tuple[Product, PyTree, Steps]:
    """Chooses how the steps compute `z = [inputs, operand] @ kernel + bias`.

    * With few rows, the products of the inputs are computed before the loop.
    * Otherwise, on CPUs, a step computes one product, like a step of the cell. The
      same holds on all platforms if inputs are added (`project_inputs=False`).
    * Otherwise, on other platforms, a step computes two products. With one product,
      TPUs would write the joined operands at every step, and GPUs would launch 1.5
      times as many operations for a GRU.

    Returns:
        `(product, xs, steps)`. `product` computes z at one step. `xs` contains the
        inputs of `product` for all steps, and `steps.stand_in` for finished rows.
    """
    if _is_ahead(cell, primals, on_cpu):
        return _products_ahead(cell, primals, steps, on_cpu)

    def joined(k: int, stage: "Stage", x: Array, operand: Array, dtype: DType) -> Array:
        return cell.product(k, primals.product_params[k], x, operand, dtype)

    if on_cpu or not cell.project_inputs:
        return joined, primals.xs, steps
    products = _split_kernels(cell, primals.xs.shape[-1], primals.product_params)

    def split(k: int, stage: "Stage", x: Array, operand: Array, dtype: DType) -> Array:
        z = dot(operand, products[k]["operand"], dtype)
        if stage.takes_inputs:
            z = dot(x, products[k]["inputs"], dtype) + z
        return plus_bias(z, products[k])

    return split, primals.xs, steps


def _products_ahead(
    cell: "AffineCell", primals: Primals, steps: Steps, on_cpu: bool
) -> tuple[Product, PyTree, Steps]:
    """Multiplies the inputs of all steps before the loop; see `_choose_product`.

    `xs` has a list of blocks of z for each stage.
    """
    products = _split_kernels(cell, primals.xs.shape[-1], primals.product_params)
    dtype = widest_dtype(primals.state)

    def blocks(stage: "Stage", z: Array) -> list[Array]:
        # XLA for CPUs does not vectorize an update that reads blocks of z at an offset,
        # so each block is an array of its own. TPUs and GPUs read one array faster.
        return jnp.split(z, (stage.blocks or 1) if on_cpu else 1, axis=-1)

    def of_inputs(xs: Array) -> list[list[Array]]:
        z = lambda p: plus_bias(dot(xs, p["inputs"], dtype), p)
        pairs = zip(cell.stages, products, strict=True)
        return [blocks(stage, z(p)) if stage.takes_inputs else [] for stage, p in pairs]

    def product(
        k: int, stage: "Stage", of_inputs: list, operand: Array, dtype: DType
    ) -> Array:
        z = dot(operand, products[k]["operand"], dtype)
        if not stage.takes_inputs:
            return plus_bias(z, products[k])
        sums = map(jnp.add, of_inputs[k], blocks(stage, z))
        return jnp.concatenate(list(sums), axis=-1)

    xs = of_inputs(steps.zero_finished(primals.xs))
    if steps.stand_in is not None:
        inputs, state = steps.stand_in
        steps = dataclasses.replace(steps, stand_in=(of_inputs(inputs), state))
    return product, xs, steps


def _is_ahead(cell: "AffineCell", primals: Primals, on_cpu: bool) -> bool:
    """Whether the products of the inputs are computed before the loop."""
    time, rows, depth = primals.xs.shape
    is_read = any(stage.takes_inputs for stage in cell.stages)
    is_known = isinstance(rows, int) and isinstance(depth, int)
    if not (
        cell.project_inputs
        and is_read
        and is_known
        and rows * time <= FEW_ROWS_OVER_TIME
    ):
        return False
    if not on_cpu:
        return rows <= FEW_ROWS
    return rows <= FEW_ROWS_ON_CPU and time >= LEAST_TIME and depth >= LEAST_DEPTH


def _with_wide_lengths(steps: Steps, masked: PyTree) -> Steps:
    """Repeats the length of each row, to `[batch, size]`, for TPUs.

    On a TPU, a comparison of lengths `[batch]` costs as much as an element-wise update
    of the state, but a comparison of lengths as wide as the state is fused with the
    selects. Relative to a run without lengths, the compiler for a v5e estimates 1.03
    instead of 1.19 times the cycles for an LSTM, and 0.91 instead of 1.13 for a GRU;
    neither was measured. `masked` has the arrays to mask, or their types. Unless all of
    them are `[batch, size]`, the lengths stay `[batch]`.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(masked)]
    if steps.lengths is None or any(len(shape) != 2 for shape in shapes):
        return steps
    size = max([1, *(size for _, size in shapes)])
    lengths = jnp.expand_dims(steps.lengths, 1)
    lengths = jnp.broadcast_to(lengths, (*steps.lengths.shape, size))
    # The barrier keeps XLA from undoing the copies.
    return dataclasses.replace(steps, lengths=jax.lax.optimization_barrier(lengths))


def _split_kernels(
    cell: "AffineCell", depth: int, products: list[Params]
) -> list[Params]:
    """Splits each kernel into the rows for the inputs and the rows for the operand.

    `products` are parameters of products, or their tangents.

    Returns:
        `{"operand": [rows, columns], "inputs": [depth, columns], "bias": [columns]}`
        for each stage. A stage that reads no inputs has no "inputs". If the tangent of
        a kernel is zero, its two parts are None.
    """

    def of_stage(stage: "Stage", product: Params) -> Params:
        parts = {name: x for name, x in product.items() if name != "kernel"}
        kernel = product["kernel"]
        if not (cell.project_inputs and stage.takes_inputs):
            return parts | {"operand": kernel}
        inputs, operand = jnp.split(kernel, [depth]) if is_array(kernel) else [None] * 2
        return parts | {"inputs": inputs, "operand": operand}

    return list(map(of_stage, cell.stages, products))


def _product_tangent(
    vmap_size: int,
    xs: Array,
    d_xs: PyTree,
    d_added: Array | None,
    z: Array,
    h: Array,
    p: Params,
    d_p: Params,
) -> Array | None:
    """Computes `xs @ d_W + h @ d_U + d_xs @ W + d_b` for all steps at once.

    This is the tangent of `z = xs @ W + h @ U + b` without `d_h @ U`, which the loop
    adds. The transposes of these terms are the gradients of W, U, xs and b. If z adds
    the inputs instead of `xs @ W`, `d_added` is the tangent of the added inputs.
    """

    def of_kernel(operand: Array, d_kernel: Array) -> Array:
        few = are_few_vectors(operand, vmap_size)
        return (dot if few else dot_with_tangent)(operand, d_kernel, z.dtype)

    terms = [] if d_added is None else [d_added.astype(z.dtype)]
    if is_perturbed(d_p.get("inputs")):
        terms.append(of_kernel(xs, d_p["inputs"]))
    if is_perturbed(d_p["operand"]) and h.shape[-1]:
        terms.append(of_kernel(h, d_p["operand"]))
    if is_perturbed(d_xs) and "inputs" in p:
        terms.append(dot(d_xs, p["inputs"], z.dtype))
    if is_perturbed(d_p.get("bias")):
        terms = [plus_bias(functools.reduce(jnp.add, terms or [zeros_like(z)]), d_p)]
    return functools.reduce(jnp.add, terms) if terms else None


def _pushed_update(primals: Primals, d_elementwise: Params) -> Callable:
    """Returns `push(stage, (z, carry), tangents)`, the JVP of a stage's update.

    Each row gets its own copy of the tangents of element-wise parameters, in float32.
    The transpose of the copies therefore sums over steps in float32. The sum over rows,
    which may be divided over devices, is computed outside the loop.
    """
    elementwise = primals.elementwise
    if not any(map(is_perturbed, jax.tree.leaves(d_elementwise))):

        def push(stage: "Stage", args: tuple, d_args: tuple) -> tuple:
            update = functools.partial(stage.update, elementwise)
            return jax.jvp(lambda *args: tuple(update(*args)), args, d_args)

        return push
    state = jax.tree.leaves(primals.state)[0]

    def of_rows(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: broadcast_first(x, state, 0), tree)

    d_rows = of_rows(widened(_dense(elementwise, d_elementwise)))

    def push_rows(stage: "Stage", args: tuple, d_args: tuple) -> tuple:
        def update_row(elementwise: Params, *args: PyTree) -> tuple:
            return tuple(
                stage.update(elementwise, *jax.tree.map(lambda x: x[None], args))
            )

        # Map the update rather than its tangents: JAX cannot map over the tangents of a
        # `jax.custom_vjp`.
        given = of_rows(elementwise), *args
        d_given = cast_like(elementwise, d_rows), *d_args
        pushed = jax.jvp(jax.vmap(update_row), given, d_given)
        return jax.tree.map(lambda x: x[:, 0], pushed)

    return push_rows


def _dense(primals: PyTree, tangents: PyTree) -> PyTree:
    """Returns the tangents as arrays, with zeros for unperturbed arguments."""
    return jax.tree.map(
        lambda x, d: d if is_perturbed(d) else zeros_like(x), primals, tangents
    )
