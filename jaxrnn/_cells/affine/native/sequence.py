"""Runs whole sequences with the native loops, with derivatives of any order.

The native loops run the forward and backward passes. XLA's loop computes all other
derivatives, and runs on other platforms. Each pass is one JAX operation, with a program
for CPUs, one for other platforms, and a transpose (`native_or_xla`). No documented JAX
function provides such an operation:

* `lax.platform_dependent` sees only the platform, not whether a program is exported. A
  program exported for CPUs would call a library that may be missing where the program
  runs, and `jax.export` rejects such a program.
* No function accepts a transpose and works in all modes: `jax.custom_jvp` accepts no
  transpose, `jax.custom_vjp` lacks forward mode, and `lax.custom_linear_solve` fails in
  reverse mode over forward mode. The undocumented `linear_call` lacks `vmap` and second
  derivatives.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ...._base import jax_internals
from ...._base.derivatives import jvp_of_perturbed, of_some
from ...._base.errors import is_array
from ...._base.math import cast, is_perturbed
from ...._base.sharding import as_varying_as
from ...._base.trees import with_structure
from ...._base.typing import Array, Params, PyTree
from ...._run.masking import Steps
from ...._run.run import Run
from .. import xla_loop
from ..few_steps import why_few_steps
from ..supported import ACTIVATIONS, equations_of, native_cell
from ..xla_loop import Primals
from .calls import (
    NO_ROWS,
    ROWS,
    after_first,
    are_rows,
    call,
    float32,
    with_joined_axis,
)

if TYPE_CHECKING:
    from ..cell import AffineCell

_REFUSAL = (
    "`implementation` 'native' runs only on CPUs in this process, but "
    "this program is compiled for another platform or exported. Omit `implementation`, "
    "also in a function or module that passes it on, to use XLA's loop."
)


def native_sequence(
    cell: "AffineCell", params: Params, run: Run, is_default: bool = False
) -> tuple[PyTree, PyTree]:
    """`(outputs, state)` of all steps, computed by the native loops.

    A call runs whole sequences on several threads. The call rearranges matrices once
    for fast matrix products, and performs the element-wise operations right after each
    product. After the backward loop, large products over the steps of all rows compute
    the gradients of matrices and inputs.

    Under `vmap`, mapped axes become rows of one call, and gradients are computed as for
    a batch of all rows. If parameters are mapped, the axes become independent entries
    of the call, which share the call's threads. Rows on
    several devices need `jax.shard_map`, because XLA cannot partition the call.

    Args:
        cell: An `AffineCell`.
        params: The cell's parameters.
        run: The inputs, `[batch, time, depth]`, or `[time, batch, depth]` if
            `run.steps.axis` is 0; the initial state, each leaf `[batch, size]`; and the
            steps.
        is_default: Whether XLA's loop runs a few steps, and all steps in programs for
            other platforms. If False, compiling for another platform raises an error.
    """
    loop = NativeLoop(cell, None if is_default else _REFUSAL)
    return loop.run(*xla_loop.primals_of(cell, params, run))


class NativeLoop:
    """A cell's forward and backward loops; XLA's loop computes other derivatives.

    Args:
        cell: An `AffineCell`.
        refusal: The message of the error for other platforms; None to use XLA's loop on
            other platforms, and for a few steps.
    """

    def __init__(self, cell: "AffineCell", refusal: str | None) -> None:
        self.cell = cell
        self.refusal = refusal
        self.equations: Any = equations_of(cell)
        self.spec = native_cell(self.equations)

    def run(self, primals: Primals, steps: Steps) -> tuple[PyTree, PyTree]:
        """`(outputs, state)` of all steps."""
        return xla_loop.with_tangent_rule(self.forward, self.push_forward)(
            primals, steps
        )

    def forward(
        self, primals: Primals, steps: Steps, save: bool
    ) -> tuple[PyTree, PyTree, PyTree]:
        """`(outputs, state, saved)`.

        `saved` holds `zs` and `(h, c)`, the state before each step, with the axes of
        the inputs. If there are no restarts, h before a step equals the output of the
        previous step. In this case, `outputs` are saved instead of h, and functions
        that read h shift the outputs by one step.
        """
        xla = functools.partial(self._forward_by_xla, save=save)

        def native(primals: Primals, steps: Steps) -> tuple:
            if self._is_short(primals, steps):
                return xla(primals, steps)
            return self._forward(primals, steps, save)

        of_primals, of_steps, sequence = _row_axes(steps)
        rows = (of_primals, of_steps), (sequence, ROWS, sequence)
        return native_or_xla(
            native, xla, primals, steps, refusal=self.refusal, rows=rows
        )

    def push_forward(
        self, primals: Primals, steps: Steps, saved: PyTree, tangents: Primals
    ) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`, whose transpose is a native loop."""
        perturbed = jax.tree.map(is_perturbed, tangents)

        def only_perturbed(tree: Primals) -> Primals:
            return jax.tree.map(lambda keep, x: x if keep else None, perturbed, tree)

        def pull(*args: PyTree) -> Primals:
            return only_perturbed(self.transpose(*args))

        args = primals, steps, saved, only_perturbed(tangents)
        of_primals, of_steps, sequence = _row_axes(steps)
        rows = (of_primals, of_steps, sequence, of_primals), (sequence, ROWS)
        return native_or_xla(
            self.tangent, self.tangent, *args, transpose=pull, rows=rows
        )

    def tangent(
        self, primals: Primals, steps: Steps, saved: PyTree, tangents: Primals
    ) -> tuple[PyTree, PyTree]:
        """The tangents of `(outputs, state)`, computed by XLA's loop."""
        swap = steps.swap_time
        primals = primals._replace(xs=swap(primals.xs))
        tangents = tangents._replace(xs=swap(tangents.xs))
        saved = self._saved_by_xla(primals, steps, swap(saved))
        d_outputs, d_state = xla_loop.push_forward(
            self.cell, primals, steps.time_first(), saved, tangents
        )
        return swap(d_outputs), d_state

    def transpose(
        self, primals: Primals, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Primals:
        """The cotangents of the primals."""

        def by_xla(primals: Primals, steps: Steps, saved: PyTree, cts: Any) -> Primals:
            push = functools.partial(self.tangent, primals, steps, saved)
            return jax.linear_transpose(push, primals)(cts)[0]

        def native(primals: Primals, steps: Steps, *args: Any) -> Primals:
            pull = by_xla if self._is_short(primals, steps) else self._backward
            return pull(primals, steps, *args)

        # A mapped transpose returns one gradient for each mapped entry, so it has no
        # `rows`. Its loop still runs once, on all mapped rows; see `call`.
        args = primals, steps, saved, cotangents
        return native_or_xla(native, by_xla, *args, refusal=self.refusal)

    def _is_short(self, primals: Primals, steps: Steps) -> bool:
        """Whether XLA's loop is faster, by default; mapped rows count too."""
        is_default = self.refusal is None
        return is_default and bool(why_few_steps(self.cell, primals.xs, steps))

    def _forward_by_xla(self, primals: Primals, steps: Steps, save: bool) -> tuple:
        swap = steps.swap_time
        primals = primals._replace(xs=swap(primals.xs))
        outputs, state, saved = xla_loop.forward(
            self.cell, primals, steps.time_first(), save
        )
        if save:
            zs, states = saved
            h, c = self._split(states)
            if steps.restarts is None:
                h = outputs[0] if steps.returns_states else outputs
            saved = zs, (h, c)
        return swap(outputs), state, swap(saved)

    def _saved_by_xla(self, primals: Primals, steps: Steps, saved: PyTree) -> PyTree:
        """The values that XLA's loop would have saved, with time as the first axis."""
        zs, (h, c) = saved
        if steps.restarts is None:
            first, _ = self._split(primals.state)
            if steps.lengths is not None:  # In a row of length 0, `first` may be NaN.
                first = jnp.where(steps.lengths[:, None] > 0, first, 0)
            h = jnp.concatenate([first[None], h[:-1]])
        return zs, self._join(primals.state, (h, c))

    def _forward(self, primals: Primals, steps: Steps, save: bool) -> tuple:
        """`forward` on CPUs.

        In this method and in `_backward`, a state is a pair `(h, c)`, see `_split`, and
        sequences are `[batch, time, size]` or `[time, batch, size]`.
        """
        xs, state = primals.xs, self._split(primals.state)
        sequence = 1 - steps.axis  # The row axis of a sequence; see `call`.
        h, c = jax.tree.map(lambda x: float32(*xs.shape[:2], x.shape[-1]), state)
        zs = [float32(*xs.shape[:2], stage.columns) for stage in self.cell.stages]
        # Without restarts, h before a step is the previous output.
        saved_h = None if steps.restarts is None else h
        outputs, last, new_c, zs, saved = call(
            "forward",
            args=[
                (ROWS, _lengths(xs, steps)),
                (sequence, cast(steps.restarts, jnp.int32)),  # 1 before a restart.
                (sequence, xs),
                (NO_ROWS, [(p["kernel"], p.get("bias")) for p in primals.products]),
                (NO_ROWS, self._stacked(primals.elementwise)),
                (ROWS, state),
                (ROWS, self._split(primals.restart_states)),
            ],
            results=[  # Zeros in finished rows; the products are finite there.
                (sequence, h),
                (ROWS, state),
                (sequence, c if steps.returns_states else None),
                (sequence, zs if save else []),
                (sequence, (saved_h, c) if save else None),
            ],
            attributes=self._attributes(primals, steps) | {"save": save},
        )
        if save:
            h, c = saved
            saved = zs, (outputs if h is None else h, c)
        if steps.returns_states:
            outputs = outputs, self._join(primals.state, (outputs, new_c))
        return outputs, self._join(primals.state, last), saved if save else ()

    def _backward(
        self, primals: Primals, steps: Steps, saved: PyTree, cotangents: tuple
    ) -> Primals:
        """`transpose` on CPUs: the loop, then products over the steps of all rows."""
        zs, (h, c) = saved
        ct_outputs, ct_last = cotangents
        ct_new_c = None
        if steps.returns_states:
            ct_outputs, ct_states = ct_outputs
            ct_h, ct_new_c = self._split(ct_states)
            ct_outputs = ct_outputs + ct_h
        xs, state = primals.xs, self._split(primals.state)
        first = state[0] if steps.restarts is None else None
        sequence = 1 - steps.axis
        lengths = _lengths(xs, steps)
        kernels = [product["kernel"] for product in primals.products]
        elementwise = self._stacked(primals.elementwise)
        attributes = self._attributes(primals, steps)
        # The operand that a step computes from h, if any; see `NativeCell`.
        computed = ct_rows = None
        if "computed" in self.spec.operands:
            computed = float32(*xs.shape[:2], attributes["units"])
        if elementwise is not None:  # For each row separately.
            ct_rows = float32(*lengths.shape, *elementwise.shape)
        ct_zs, computed, ct_state, ct_restart_states, ct_rows = call(
            "backward",
            args=[
                (ROWS, lengths),
                (sequence, cast(steps.restarts, jnp.int32)),
                (NO_ROWS, kernels),
                (NO_ROWS, elementwise),
                (sequence, zs),
                (sequence, (h, c)),  # The outputs in place of h, if h was not saved.
                (ROWS, first),
                (sequence, ct_outputs),
                (sequence, ct_new_c),
                (ROWS, self._split(ct_last)),
            ],
            results=[  # Undefined in finished rows; the computed operand is zeros.
                (sequence, zs),
                (sequence, computed),
                (ROWS, state),
                (ROWS, None if steps.restarts is None else state),
                (ROWS, ct_rows),
            ],
            attributes=attributes,
            reused=4,
        )

        # What the state's matrix of each product multiplied at each step. `first` is
        # the operand of the first step if each later step multiplied the previous one.
        operands = {"h": (h, first), "computed": (computed, None), None: (None, None)}

        def pull(stage: Any, product: Params, name: str | None, ct_z: Array) -> Params:
            operand, before = operands[name]
            arrays = lengths, xs if stage.takes_inputs else None, operand, before, ct_z
            names = [name for name in ("kernel", "bias") if name in product]
            of_product = {
                "depth": attributes["depth"] if stage.takes_inputs else 0,
                "units": 0 if operand is None else operand.shape[-1],
                "columns": ct_z.shape[-1],
                "before": before is not None,
                "bias": "bias" in product,
            }
            found = call(
                "weights",
                args=[(NO_ROWS, x) for x in arrays],
                results=[(NO_ROWS, product[name]) for name in names],
                attributes=attributes | of_product,
            )
            return dict(zip(names, found, strict=True))

        stages = self.cell.stages
        products = list(map(pull, stages, primals.products, self.spec.operands, ct_zs))
        given = zip(stages, kernels, ct_zs, strict=True)
        pairs = [(w, ct_z) for stage, w, ct_z in given if stage.takes_inputs]
        rows, columns = np.array([w.shape for w, _ in pairs]).T
        of_inputs = {"rows": rows - attributes["depth"], "columns": columns}
        (ct_xs,) = call(
            "inputs",
            args=[(ROWS, lengths), ([(NO_ROWS, sequence)] * len(pairs), pairs)],
            results=[(sequence, xs)],
            attributes=attributes | of_inputs,
        )
        return Primals(
            products=products,
            elementwise=self._unstacked(primals.elementwise, ct_rows),
            xs=ct_xs,
            state=self._join(primals.state, ct_state),
            restart_states=self._join(primals.state, ct_restart_states),
        )

    def _attributes(self, primals: Primals, steps: Steps) -> dict[str, Any]:
        """The static arguments of all calls."""
        equations = self.equations
        h, c = self._split(primals.state)

        def bound(clip: float | None) -> np.float32:
            return np.float32(math.inf if clip is None else clip)

        return {
            "cell": np.int32(self.spec.number),
            "activation": np.int32(ACTIVATIONS.index(equations.activation)),
            "forget_bias": np.float32(equations.forget_bias),
            "cell_clip": bound(equations.cell_clip),
            "output_clip": bound(equations.proj_clip),
            "time": steps.time,
            "time_major": steps.axis == 0,
            "depth": primals.xs.shape[-1],
            "units": (h if c is None else c).shape[-1],
            "outputs": h.shape[-1],
            "restarts": steps.restarts is not None,
            "elementwise": bool(primals.elementwise),
            "new_states": steps.returns_states,
        }

    def _stacked(self, elementwise: Params) -> Array | None:
        """The parameters in the order of C++; None if there are no parameters."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(elementwise)
        found = {_name(path): x for path, x in leaves}
        return jnp.stack([found[n] for n in self.spec.elementwise]) if found else None

    def _unstacked(self, like: Params, rows: Array | None) -> Params:
        """The cotangents of the parameters `like`, from the cotangents of the rows."""
        if rows is None:
            return {}
        sums = dict(zip(self.spec.elementwise, rows.sum(0), strict=True))
        return jax.tree_util.tree_map_with_path(lambda path, _: sums[_name(path)], like)

    def _split(self, state: PyTree) -> PyTree:
        """`(h, c)`, `[..., outputs]` and `[..., units]`; c is None without an LSTM."""
        if state is None:
            return None
        h, carry = self.cell.enter(state)
        # The carry of an LSTM begins with c.
        return h, carry[0] if self.spec.has_c else None

    def _join(self, like: PyTree, pair: tuple[Array, Array | None] | None) -> PyTree:
        """The inverse of `_split`, with the structure of `like`; None for no pair."""
        if pair is None:
            return None
        h, c = pair
        if c is None:
            return h
        if jax.tree_util.all_leaves([like]):  # One array `[c, h]`.
            return jnp.concatenate([c, h], axis=-1)
        return with_structure(like, (c, h))


def _row_axes(steps: Steps) -> tuple[Primals, Steps, Any]:
    """The row axes of primals, steps and sequences, as pytree prefixes."""
    sequence: Any = 1 - steps.axis
    # Mapped rows share `steps_to_run`, which is their maximum: `batch_maximum`.
    of_steps = steps._with_each(rows=ROWS, sequences=sequence, shared=NO_ROWS)
    return Primals(NO_ROWS, NO_ROWS, sequence, ROWS, ROWS), of_steps, sequence


def _lengths(xs: Array, steps: Steps) -> Array:
    """The number of steps of each row, int32 `[batch]`."""
    if steps.lengths is None:
        return jnp.full(xs.shape[1 - steps.axis], steps.time, jnp.int32)
    return steps.lengths


def _name(path: tuple) -> str:
    """The name of a parameter, as in `NativeCell.elementwise`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def native_or_xla(
    native: Callable,
    xla: Callable,
    *args: PyTree,
    transpose: Callable | None = None,
    refusal: str | None = None,
    rows: PyTree = NO_ROWS,
) -> PyTree:
    """Runs `native(*args)` on CPUs, and `xla(*args)` elsewhere.

    Exported programs also use `xla`, because they may run on a machine without the
    library that `native` calls. Derivatives are computed from `xla`, except for a given
    `transpose`.

    If `vmap` maps only arrays with rows, the mapped axis joins the rows, and the same
    functions run on more rows. The gradient of an array without rows, such as a kernel,
    is then one sum over all rows. Otherwise, `vmap` maps the functions.

    Args:
        native: A function that closes over no arrays.
        xla: A function that closes over no arrays, with results of the same structure,
            shapes and dtypes.
        *args: The arguments of both functions, trees of arrays.
        transpose: The transpose with respect to the last argument, if both functions
            are linear in this argument. The transpose maps the other arguments and the
            cotangents of the results to the cotangent of the last argument. If None,
            JAX transposes `xla`.
        refusal: The message of a ValueError to raise instead of running `xla`; None to
            run `xla`.
        rows: The row axis of each array, or `NO_ROWS`, as a pytree prefix of `args` and
            the results. By default, no array has rows.
    """
    leaves, tree = jax.tree.flatten(args)
    others = jax.tree.structure(args[:-1] if transpose else args)
    count = others.num_leaves
    program, types = jax.make_jaxpr(native, return_shape=True)(*args)
    out = jax.tree.structure(types)
    of_args, of_results = jax.tree.broadcast(rows, (args, types))
    config: Any = jax.config
    precision = config.jax_default_matmul_precision

    def flat(fn: Callable, unflatten: Callable) -> Callable:
        def run(*leaves: Any) -> list:
            # JAX traces this function later, when another precision may be set.
            with jax.default_matmul_precision(precision):
                return jax.tree.leaves(fn(*unflatten(leaves)))

        return run

    def with_cotangents(leaves: tuple) -> tuple:
        return *others.unflatten(leaves[:count]), out.unflatten(leaves[count:])

    programs = _Programs(
        native=flat(native, tree.unflatten),
        xla=flat(xla, tree.unflatten),
        transpose=flat(transpose, with_cotangents) if transpose else None,
        types=tuple(program.out_avals),
        count=count,
        refusal=refusal,
        rows=(jax.tree.leaves(of_args), jax.tree.leaves(of_results)),
    )
    return out.unflatten(_operation().bind(*leaves, programs=programs))


@dataclasses.dataclass(frozen=True, eq=False)
class _Programs:
    """The functions of one operation, which map leaves to lists of leaves.

    Attributes:
        native: The function that runs on CPUs.
        xla: The function that runs elsewhere.
        transpose: The transpose of `native` and `xla` with respect to the leaves after
            the first `count`. If None, JAX transposes `xla`.
        types: The types of the results.
        count: The number of leaves before the leaves of the linear argument; if there
            is no transpose, the number of all leaves.
        refusal: The message of an error to raise instead of running `xla`; None to run
            `xla`.
        rows: The row axis, or `NO_ROWS`, of each leaf and of each result.
    """

    native: Callable
    xla: Callable
    transpose: Callable | None
    types: tuple
    count: int
    refusal: str | None
    rows: tuple[list, list]


def _run(*leaves: Any, programs: _Programs) -> list:
    """Runs the operation outside jit."""
    # Skip leaves that are not JAX arrays, because such leaves are on no device.
    arrays = (x for x in leaves if isinstance(x, jax.Array))
    platforms = {device.platform for x in arrays for device in x.devices()}
    is_native = (platforms or {jax.default_backend()}) == {"cpu"}
    if not is_native and programs.refusal is not None:
        raise ValueError(programs.refusal)
    return (programs.native if is_native else programs.xla)(*leaves)


def _lower(ctx: Any, *leaves: Any, programs: _Programs) -> Any:
    module = ctx.module_context
    is_on_cpu = tuple(ctx.platforms or module.platforms) == ("cpu",)
    is_native = is_on_cpu and not module.lowering_parameters.for_export
    if not is_native and programs.refusal is not None:
        raise ValueError(programs.refusal)
    run = programs.native if is_native else programs.xla
    return jax_internals.lower_fun(run, multiple_results=True)(ctx, *leaves)


def _push_forward(
    primals: Any, tangents: Any, *, programs: _Programs
) -> tuple[list, list]:
    """The JVP of the operation, which differentiates XLA's program."""
    _, d_outs = jvp_of_perturbed(programs.xla, primals, tangents)
    return _operation().bind(*primals, programs=programs), d_outs


def _pull_back(cts: Any, *leaves: Any, programs: _Programs) -> list:
    """The cotangents of the unknown linear leaves; None for all other leaves."""
    count = programs.count
    is_known = [is_array(x) or isinstance(x, int | float) for x in leaves]
    known = [x for x, is_one in zip(leaves, is_known, strict=True) if is_one]
    unknown = [i for i, is_one in enumerate(is_known) if not is_one]
    zeros = [jnp.zeros(x.shape, x.dtype) for x in programs.types]
    pairs = zip(cts, as_varying_as(known, zeros), strict=True)
    cts = [ct if is_array(ct) else zero for ct, zero in pairs]
    if programs.transpose is None:
        types = [leaves[i].aval for i in unknown]
        types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in types]
        of_unknown = of_some(programs.xla, leaves, unknown)
        pulled = jax.linear_transpose(of_unknown, *types)(cts)
        found = dict(zip(unknown, pulled, strict=True))
    else:
        found = dict(enumerate(programs.transpose(*leaves[:count], *cts), count))
    return [found[i] if i in unknown else None for i in range(len(leaves))]


def _batch(leaves: Any, dims: Any, *, programs: _Programs) -> tuple[list, list]:
    """Applies the operation to more rows or to mapped functions; see `native_or_xla`.

    The results are mapped along axis 0.
    """
    pairs = list(zip(leaves, dims, strict=True))
    size = next(x.shape[axis] for x, axis in pairs if axis is not None)
    leaves = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in pairs]
    is_mapped = [axis is not None for axis in dims]
    count, (rows, result_rows) = programs.count, programs.rows

    def bind(*leaves: Any, **fields: Any) -> list:
        native = fields.get("native", programs.native)
        fields["types"] = tuple(jax.make_jaxpr(native)(*leaves).out_avals)
        given = dataclasses.replace(programs, **fields)
        return _operation().bind(*leaves, programs=given)

    # Mapped tangents alone, such as those of a Jacobian, are no rows, because rows
    # would repeat all other arrays. A native call has at least one row.
    if size and any(is_mapped[:count]) and are_rows(is_mapped, rows):
        results = with_joined_axis(bind, size, leaves, is_mapped, rows, result_rows)
        return results, [0] * len(results)

    # Map all linear leaves, so that the results of the transpose are mapped too.
    for i in range(count, len(leaves)):
        if not is_mapped[i]:
            leaves[i] = jnp.broadcast_to(leaves[i], (size, *leaves[i].shape))
            is_mapped[i] = True

    def mapped(fn: Callable) -> Callable:
        def run(*leaves: Any) -> list:
            axes = [0 if x else None for x in is_mapped[:count]]
            axes = *axes, *[0] * (len(leaves) - count)
            return jax.vmap(fn, axes, axis_size=size)(*leaves)

        return run

    names = "native", "xla", "transpose"
    given = {n: fn for n in names if (fn := getattr(programs, n)) is not None}
    fields = {n: mapped(fn) for n, fn in given.items()}
    pairs = zip(rows, is_mapped, strict=True)
    rows = [after_first(axis) if is_one else axis for axis, is_one in pairs]
    results = bind(*leaves, rows=(rows, list(map(after_first, result_rows))), **fields)
    return results, [0] * len(results)


@functools.cache
def _operation() -> Any:
    """The operation as a JAX primitive, with its transformation rules."""
    operation = jax_internals.Primitive("native")
    operation.multiple_results = True
    operation.def_impl(_run)
    operation.def_abstract_eval(lambda *_, programs: programs.types)
    jax_internals.register_lowering(operation, _lower)
    jax_internals.primitive_jvps[operation] = _push_forward
    jax_internals.primitive_transposes[operation] = _pull_back
    jax_internals.primitive_batchers[operation] = _batch
    return operation
