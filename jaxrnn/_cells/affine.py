"""Cells that are products followed by elementwise updates.

The cost of a recurrent cell is in `[inputs, h] @ kernel + bias`; the rest is
elementwise. A cell that keeps the two apart is a chain of stages, and all that concerns
the products alone (initializing, checking, hoisting them out of a loop) is written once
for all such cells.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import jax
import jax.numpy as jnp

from .._base.arguments import as_bool, as_count, check_divides
from .._base.errors import describe, error_note, name_of
from .._base.math import affine, is_traced, widest_dtype
from .._base.trees import merge_dicts
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree
from .._sequences.implementation import run_affine
from .._time import masking
from .._time.run import DeclinedError, Run
from .base import scope_name
from .hyperparameters import as_function, as_size, as_string, check_fields, optional
from .initializers import ParamSpec
from .specs_cell import SpecsCell
from .step_checks import as_pair, check_new_state, check_one_dtype, check_operand

Updated: TypeAlias = tuple[Array, Any]
"""`(operand, carry)` for the next stage; of the last one `(output, new_state)`."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One product of a cell and the elementwise update that follows it.

        z = [inputs, operand] @ kernel + bias
        operand, carry = update(params, z, carry)

    The operand is what the next stage multiplies; the carry is what it receives
    besides, any pytree. The first stage gets both from the cell's `enter`; the last
    one returns `(output, new_state)` in their place.

    Attributes:
        update: `update(params, z, carry) -> (operand, carry)`, which treats each row
            separately; `params` are those of the cell's `elementwise_specs`.
        rows: The size of the operand; 0 for a product of the inputs alone.
        columns: The size of z.
        kernel: The initializer of the kernel.
        bias: The initializer of the bias, or None for a product without one.
        path: The keys of the dict that holds `kernel` and `bias`, joined by slashes;
            None for the top.
        takes_inputs: Whether the inputs are concatenated before the operand.
        blocks: The number of equal blocks into which the update splits z: 4 in an LSTM,
            2 for the gates of a GRU, 1 where z is not split. It is read by initializers
            that draw each block apart, which refuse None.

    Raises:
        ValueError: If z cannot be split into `blocks` of one size, or a size is
            negative.
        TypeError: If a field is of the wrong kind.
    """

    update: Callable[[Params, Array, Any], Updated]
    rows: int
    columns: int
    kernel: Initializer
    bias: Initializer | None
    path: str | None = None
    takes_inputs: bool = True
    blocks: int | None = None

    def __post_init__(self) -> None:
        check_fields(
            self,
            update=as_function,
            rows=as_size,
            columns=as_size,
            kernel=as_function,
            bias=optional(as_function),
            path=optional(as_string),
            takes_inputs=as_bool,
            blocks=optional(as_count),
        )
        what = f"the {self.columns} columns"
        check_divides("Stage", "blocks", self.blocks or 1, self.columns, what)

    def specs(self, depth: int) -> dict[str, Any]:
        """The parameters for inputs of size `depth`, under their names."""
        input_rows = depth if self.takes_inputs else 0
        shape = (input_rows + self.rows, self.columns)
        specs = {"kernel": ParamSpec(shape, self.kernel, input_rows, self.blocks)}
        if self.bias is not None:
            specs["bias"] = ParamSpec(shape[1:], self.bias, blocks=self.blocks)
        for key in self.path.split("/")[::-1] if self.path else ():
            specs = {key: specs}
        return specs

    def product(
        self, params: Params, inputs: Array, operand: Array, dtype: DType
    ) -> Array:
        """z, `[batch, columns]` in `dtype`, for inputs `[batch, depth]`."""
        operands = (inputs, operand) if self.takes_inputs else (operand,)
        return affine(self._from_path(params), operands, dtype)

    def product_params(self, params: Params, depth: int) -> Params:
        """The product's parameters, the kernel split into inputs and operand.

        Returns:
            `{"state": [rows, columns], "inputs": [depth, columns], "bias": [columns]}`,
            the last two only if the stage has them.
        """
        params = self._from_path(params)
        product = {"state": params["kernel"]}
        if self.takes_inputs:
            product["inputs"], product["state"] = jnp.split(params["kernel"], [depth])
        return product | {name: params[name] for name in params.keys() & {"bias"}}

    def _from_path(self, params: Params) -> Params:
        for key in self.path.split("/") if self.path else ():
            params = params[key]
        return params


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class AffineCell(SpecsCell):
    """A cell given by its `stages`; `init` and `apply` follow from them.

    So does `apply_sequence`, fast over whole sequences, forward and backward, as long
    as `apply` is not overridden and no function closes over traced arrays.

    Inputs are `[batch, depth]` and floating; inputs, parameters and the state that is
    multiplied share one dtype. A leaf of the state that is only used elementwise may be
    wider: then the elementwise work is done in that dtype.

    Example:
        The minimal gated unit (arXiv:1603.09420), whose gate both forgets and resets.

        >>> import dataclasses, jax, jax.numpy as jnp, jaxrnn
        >>> normal, ones = jax.nn.initializers.glorot_normal(), jax.nn.initializers.ones
        >>> @dataclasses.dataclass(frozen=True, eq=False)
        ... class MinimalGatedUnit(jaxrnn.AffineCell):
        ...     num_units: int
        ...
        ...     @property
        ...     def stages(self):
        ...         n = self.num_units
        ...         return (
        ...             jaxrnn.Stage(self.gate, n, n, normal, ones, "gate", blocks=1),
        ...             jaxrnn.Stage(self.renew, n, n, normal, ones, "new", blocks=1),
        ...         )
        ...
        ...     state_size = output_size = property(lambda self: self.num_units)
        ...
        ...     def enter(self, h):
        ...         return h, h
        ...
        ...     def gate(self, params, z, h):
        ...         f = jax.nn.sigmoid(z)
        ...         return f * h, (f, h)
        ...
        ...     def renew(self, params, z, carry):
        ...         f, h = carry
        ...         h = (1 - f) * h + f * jnp.tanh(z)
        ...         return h, h
        >>> cell, x = MinimalGatedUnit(4), jnp.ones((2, 5, 3))
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> outputs, h = jaxrnn.dynamic_rnn(cell.bind(params), x, dtype=x.dtype)
        >>> outputs.shape
        (2, 5, 4)
    """

    # The cell of libraries whose equations these are: "lstm", "gru" (which resets the
    # state before the product), "cudnn_gru" (after it) or "rnn". It is not inherited:
    # see `declared_kind`.
    library_kind: ClassVar[str | None] = None

    @property
    @abc.abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The products in order, each with the update that follows it."""

    @abc.abstractmethod
    def enter(self, state: PyTree) -> Updated:
        """The first stage's `(operand, carry)`, from the state before the step.

        Returns:
            The part of the state that the first stage multiplies, `[batch, rows]`, and
            what its update receives besides; see `Stage`.
        """

    @property
    def is_random(self) -> bool | None:
        """Whether a step draws random numbers: no; None if `apply` is overridden."""
        return False if type(self).apply is AffineCell.apply else None

    def elementwise_specs(self) -> dict[str, Any]:
        """A nest of parameters that the updates read outside any product: peepholes."""
        return {}

    def stage_params(self, params: Params) -> Params:
        """The parameters under the names that the stages give them.

        By default these are the parameters as they are. A cell that stores them in
        another form, such as two kernels in one array, or a kernel that is normalized
        before it is used, overrides this together with `param_specs`. It is called once
        for the steps of a run, or of a segment, and JAX differentiates it.
        """
        return params

    @property
    def library_cell(self) -> "AffineCell":
        """The cell whose hyper-parameters say which cell of libraries this is."""
        return self

    @property
    def declared_kind(self) -> str | None:
        """The `library_kind` of the class itself: subclasses may compute anything."""
        return vars(type(self)).get("library_kind")

    def why_not_tanh(self) -> str | None:
        """Which other activation this one has, or None."""
        activation = getattr(self, "activation", jnp.tanh)
        if activation is jnp.tanh:
            return None
        return f"the activation of this one is {name_of(activation)}"

    def param_specs(self, depth: int) -> dict[str, Any]:
        """All parameters for inputs of size `depth`, in the order of their creation."""
        first, *rest = (stage.specs(depth) for stage in self.stages)
        return functools.reduce(merge_dicts, rest, first | self.elementwise_specs())

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step; see `RNNCell.apply`. No random numbers are drawn.

        Raises:
            ValueError: If a shape, or the set of parameters, is not what the cell and
                the inputs require. If the state has the wrong number of arrays, the
                error is an IndexError as well, as in TensorFlow.
            TypeError: If a dtype, or the kind of state, is not what they require.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        output, new_state = self._step(self.stage_params(params), inputs, state)
        check_new_state(self, state, new_state)
        return output, new_state

    def _step(self, params: Params, inputs: Array, state: PyTree) -> Updated:
        product = functools.partial(self._product, params)
        return self.chain(product, params, inputs, state)[:2]

    def apply_sequence(self, params: Params, run: Run) -> tuple[PyTree, PyTree]:
        """All steps at once, with gradients in large products; see `RNNCell`.

        Raises:
            DeclinedError: If a function closes over traced arrays, the number of steps
                is symbolic, or the implementation cannot run this.
        """
        params = self.stage_params(params)
        # A traced array inside of a closure is no argument of the `custom_jvp`: its
        # gradient would be lost.
        step = lambda *args: self._step(*args)  # Else JAX would find an earlier trace.
        first_inputs = masking.first_inputs(run.inputs, run.steps.axis)
        # Their sizes alone: on a mesh a step may not fit the way they are divided.
        sizes = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        args = jax.tree.map(sizes, (params, first_inputs, run.state))
        if any(map(is_traced, jax.make_jaxpr(step)(*args).consts)):
            raise DeclinedError("its functions close over traced arrays")
        if not isinstance(run.steps.time, int):
            raise DeclinedError("the number of steps is symbolic")
        return run_affine(self, params, run)

    def chain(
        self, product: Callable, params: Params, inputs: Array, state: PyTree
    ) -> tuple[PyTree, PyTree, list]:
        """One step by its stages.

        Args:
            product: `product(k, stage, inputs, operand, dtype)` computes the z of stage
                number k, `[batch, columns]`.
            params: The cell's parameters, or those that the updates read.
            inputs: One step of inputs, `[batch, depth]`, passed on to `product`.
            state: The state before the step, each leaf `[batch, size]`.

        Returns:
            `(output, new_state, zs)`, the last with an entry for each stage, `[batch,
            columns]`.
        """
        zs, elementwise = [], self.elementwise(params)
        with jax.named_scope(scope_name(self)):
            operand, carry = as_pair(self, "`enter`", self.enter(state))
            dtype = widest_dtype(state)
            for k, stage in enumerate(self.stages):
                zs.append(product(k, stage, inputs, operand, dtype))
                update = f"the update of stage {k}"
                note = f"raised by {update}, whose z is {describe(zs[-1])}."
                with error_note(f"{type(self).__name__}: {note}"):
                    result = stage.update(elementwise, zs[-1], carry)
                operand, carry = as_pair(self, update, result)
            return operand, carry, zs

    def elementwise(self, params: Params) -> Params:
        """The parameters that the updates use directly, outside any product."""
        return {name: params[name] for name in self.elementwise_specs()}

    def product_params(self, params: Params, depth: int) -> list[Params]:
        """The parameters of each stage's product; see `Stage.product_params`."""
        return [stage.product_params(params, depth) for stage in self.stages]

    def check_dtypes(self, inputs: Array, state: PyTree) -> None:
        """Raises TypeError unless the inputs, the operand and the cell share one."""
        operand, _ = as_pair(self, "`enter`", self.enter(state))
        check_one_dtype(self, inputs, operand)

    def _product(
        self, params: Params, k: int, stage: Stage, x: Array, operand: Array, dtype: Any
    ) -> Array:
        """The z of stage k, `[batch, columns]`, after a check of the operand."""
        check_operand(self, k, operand, (x.shape[0], stage.rows))
        return stage.product(params, x, operand, dtype)
