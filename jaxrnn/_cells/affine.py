"""Cells that alternate matrix products with element-wise updates.

Most of the cost of a recurrent cell is in `[inputs, h] @ kernel + bias`; the rest is
element-wise. `AffineCell` describes a cell as a chain of stages, each a matrix product
followed by an element-wise update. All affine cells share the code that initializes and
checks parameters, and the code that computes the matrix products of the inputs for many
steps at once, outside of the loop.
"""

import abc
import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax

from .._base.arguments import check_function, is_list_of
from .._base.errors import expect
from .._base.inputs import as_like
from .._base.math import widest_dtype
from .._base.products import affine
from .._base.typing import Array, DType, Initializer, Key, Params, PyTree, State
from . import fields
from .base import SpecsCell, scope_name
from .equations import Equations
from .fields import Hyperparameters
from .params import ParamSpec, Specs, glorot_uniform, zeros
from .step_checks import check_step_inputs

StageResult: TypeAlias = tuple[Array, PyTree]
"""`(operand, carry)` for the next stage, or `(output, new_state)` from the last."""


@fields.dataclass
class Stage(Hyperparameters):
    """One matrix product of a cell and the element-wise update that follows it.

    Each step computes::

        z = [inputs, operand] @ kernel + bias
        operand, carry = update(params, z, carry)

    The next stage multiplies the operand by its kernel and passes the carry, which may
    be any pytree, to its update. The cell's `enter` method returns the operand and the
    carry of the first stage. The update of the last stage returns `(output, new_state)`
    instead.

    Attributes:
        update: `update(params, z, carry) -> (operand, carry)`. The function must treat
            each row separately; `params` holds the parameters that the cell's
            `elementwise_specs` declares.
        operand_size: The size of the operand; 0 if the product reads only the inputs.
        columns: The size of z.
        kernel: The initializer of the kernel. Default: Glorot uniform.
        bias: The initializer of the bias. Default: zeros. If None, the product has no
            bias.
        path: The keys of the dict that holds `kernel` and `bias`, joined by slashes,
            such as "gates". If None, both are at the top level of the parameters.
        takes_inputs: Whether the product also reads the inputs, concatenated before the
            operand. If the cell's `project_inputs` is False, the inputs are added
            instead: z is `operand @ kernel + bias`, plus this stage's columns of the
            inputs.
        blocks: The number of equal blocks into which the update splits z: 4 in an LSTM,
            2 for the gates of a GRU, 1 if z is not split. Initializers that draw each
            block separately require this number. Loops on CPUs may also store the
            blocks separately.

    Raises:
        ValueError: If a size is negative, or if `blocks` does not divide `columns`.
        TypeError: If a field has the wrong type.
    """

    update: Callable[[Params, Array, PyTree], StageResult] = fields.function()
    operand_size: int = fields.size()
    columns: int = fields.size()
    kernel: Initializer = fields.function(default=glorot_uniform)
    bias: Initializer | None = fields.checked(
        fields.optional(check_function), default=zeros
    )
    path: str | None = fields.name()
    takes_inputs: bool = fields.flag(True)
    blocks: int | None = fields.count(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        must = f"divide `columns`, {self.columns}"
        expect(self.columns % (self.blocks or 1) == 0, "blocks", must, self.blocks)

    def specs(self, depth: int) -> Specs:
        """Nested dicts of `ParamSpec`s for inputs of size `depth`."""
        input_rows = depth if self.takes_inputs else 0
        shape = (input_rows + self.operand_size, self.columns)
        specs = {"kernel": ParamSpec(shape, self.kernel, input_rows, self.blocks)}
        if self.bias is not None:
            specs["bias"] = ParamSpec(shape[1:], self.bias, blocks=self.blocks)
        for key in reversed(self._keys):
            specs = {key: specs}
        return specs

    def product_params(self, params: Params) -> Params:
        """The product's parameters: its kernel and, if it adds one, its bias."""
        for key in self._keys:
            params = params[key]
        names = ["kernel"] if self.bias is None else ["kernel", "bias"]
        # `stage_params` may remove a bias that is not added.
        return {name: params[name] for name in names if name in params}

    @property
    def _keys(self) -> list[str]:
        return self.path.split("/") if self.path else []


@fields.dataclass
class AffineCell(SpecsCell[State]):
    """A cell defined by its `stages`, from which `init` and `apply` are derived.

    `dynamic_rnn` runs affine cells in a specialized loop, which computes weight
    gradients in large matrix products over many steps. If a function of the cell closes
    over traced arrays, `dynamic_rnn` falls back to a slower scan of `apply`.

    Inputs are floating-point arrays `[batch, depth]`. The inputs, the parameters and
    the part of the state that is multiplied must share one dtype. Other leaves of the
    state are only used element-wise, and may have a wider dtype; the element-wise
    operations then use the wider dtype.

    A class may have a field `project_inputs`. If the field is False, a layer before the
    cell must multiply the inputs by the kernels. The inputs of the cell are then
    `[batch, columns]`: the columns of all stages that take inputs, in the order of the
    stages. Each of these stages adds its columns to z, and its kernel has only the rows
    of the operand.

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

    project_inputs = True

    @property
    @abc.abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The matrix products in order, each with the update that follows it."""

    def enter(self, state: PyTree) -> StageResult:
        """Returns the first stage's operand and carry for the state before a step.

        By default, the state must be one array, which is both the operand and the
        carry. If the first stage has `operand_size=0`, the operand has no columns. A
        cell whose state is a nest must define this method.

        Args:
            state: The state with the structure of `state_size`, leaves `[batch, ...]`.

        Returns:
            `(operand, carry)`. The operand is the part of the state that the first
            stage multiplies, `[batch, operand_size]`. The carry is any pytree, for the
            update of this stage; see `Stage`.
        """
        return (state if self.stages[0].operand_size else state[:, :0]), state

    def elementwise_specs(self) -> Specs:
        """Specs of parameters that updates read outside products, e.g. peepholes."""
        return {}

    def stage_params(self, params: Params) -> Params:
        """Converts `params` to the names that the stages expect.

        By default, `params` are returned unchanged.

        Override this method and `param_specs` for a cell that stores its parameters in
        another form, for example two kernels in one array, or a kernel that is
        normalized before use. The loops call this method once for all steps, and JAX
        differentiates through the call.
        """
        return params

    @property
    def equations(self) -> Equations | None:
        """The standard equations of the cell; None by default.

        The native loops run cells with standard equations. A subclass must define this
        property again, because the subclass may change the updates.
        """
        return None

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters for inputs of size `depth`, in creation order."""
        fix = "To write a tuple of one stage, put a comma after the stage."
        is_many = isinstance(self.stages, tuple | list)
        expect(is_many, "stages", "be a tuple of `Stage`s", self.stages, fix, TypeError)
        depth = depth if self.project_inputs else 0
        first, *rest = (stage.specs(depth) for stage in self.stages)
        return functools.reduce(_merged, (self.elementwise_specs(), *rest), first)

    def step_inputs(self, inputs: PyTree) -> PyTree:
        """Checks and returns the inputs of a step, `[batch, depth]`."""
        if self.project_inputs:
            return super().step_inputs(inputs)
        columns = sum(stage.columns for stage in self.stages if stage.takes_inputs)
        why = "with `project_inputs=False`, one column for each column of the kernels"
        fix = "Multiply the inputs by a kernel first, or set `project_inputs=True`."
        return check_step_inputs(inputs, size=(columns,), why=why, fix=fix)

    def apply(
        self, params: Params, inputs: PyTree, state: PyTree, key: Key | None = None
    ) -> tuple[Array, State]:
        """Runs one step; see `RNNCell.apply`. The step draws no random numbers.

        Raises:
            ValueError: If a shape or a parameter name does not match the cell and the
                inputs.
            TypeError: If a dtype or the type of the state does not match the cell and
                the inputs.
        """
        inputs, state = self.checked_step(params, inputs, state, key)
        return self.step(self.stage_params(params), inputs, state)

    def step(self, params: Params, inputs: Array, state: PyTree) -> StageResult:
        """Runs one step with checked arguments; `params` are from `stage_params`."""

        def product(
            k: int, stage: Stage, x: Array, operand: Array, dtype: DType
        ) -> Array:
            name = f"stages[{k - 1}].update(...)[0]" if k else "enter(state)[0]"
            wanted = jax.ShapeDtypeStruct((x.shape[0], stage.operand_size), x.dtype)
            fix = f"Create the state with `dtype=jnp.{x.dtype}`."
            if getattr(operand, "shape", None) != wanted.shape:
                fix = "Create the state with `cell.zero_state`. A custom cell whose "
                fix += "state is a nest must define `enter`; see `AffineCell.enter`."
            fix = "" if k else fix
            operand = as_like(name, operand, wanted, wider=k > 0, fix=fix)
            return self.product(k, stage.product_params(params), x, operand, dtype)

        return self.run_stages(product, params, inputs, state)[:2]

    def product(
        self, k: int, params: Params, inputs: Array, operand: Array, dtype: DType
    ) -> Array:
        """Returns z of stage k, `[batch, columns]` in `dtype`.

        Args:
            k: The number of the stage.
            params: The parameters of the product; see `Stage.product_params`.
            inputs: `[batch, depth]`.
            operand: `[batch, operand_size]`.
            dtype: The dtype of z.
        """
        multiplies = self.project_inputs and self.stages[k].takes_inputs
        z = affine(params, (inputs, operand) if multiplies else (operand,), dtype)
        added = self.added_inputs(k, inputs)
        return z if added is None else z + added.astype(dtype)

    def added_inputs(self, k: int, inputs: Array) -> Array | None:
        """Returns the columns of the inputs that stage k adds to z, or None.

        Args:
            k: The number of the stage.
            inputs: `[..., depth]`.
        """
        if self.project_inputs or not self.stages[k].takes_inputs:
            return None
        before = sum(stage.columns for stage in self.stages[:k] if stage.takes_inputs)
        return inputs[..., before : before + self.stages[k].columns]

    def run_stages(
        self, product: Callable, params: Params, inputs: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree, list[Array]]:
        """Runs one step, stage by stage; returns `(output, new_state, zs)`.

        `zs` is a list with the z of each stage.

        Args:
            product: `product(k, stage, inputs, operand, dtype)` computes z of stage k,
                `[batch, columns]`.
            params: The parameters; only the element-wise parameters are read.
            inputs: One step of inputs, `[batch, depth]`, passed to `product`.
            state: The state before the step, each leaf `[batch, ...]`.
        """
        zs = []
        elementwise = {name: params[name] for name in self.elementwise_specs()}
        with jax.named_scope(scope_name(self)):
            operand, carry = self.enter(state)
            dtype = widest_dtype(state)
            for k, stage in enumerate(self.stages):
                z = product(k, stage, inputs, operand, dtype)
                updated = stage.update(elementwise, z, carry)
                must = "return (operand, carry); the last stage, (output, new_state)"
                expect(is_list_of(updated, 2), f"stages[{k}].update", must, updated)
                operand, carry = updated
                zs.append(z)
        output, new_state = operand, carry  # The last stage returned these.
        return output, new_state, zs


def _merged(first: Mapping, second: Mapping) -> Specs:
    """Merges two nested dicts of specs.

    Raises:
        ValueError: If both have an entry under the same keys, unless both entries are
            dicts.
    """
    merged = dict(first)
    for key, value in second.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = _merged(merged[key], value)
        else:
            text = f"parameters must have different names, got {key!r} twice"
            raise ValueError(f"{text}. Give each `Stage` its own `path`.")
    return merged
