"""One step of an affine cell within a loop over time."""

from collections.abc import Callable
from typing import Any

from .._base.typing import Array, PyTree
from .._time.steps import Steps
from .loop_rule import Primals


def masked_step(
    cell: Any, product: Callable, steps: Steps, t: Array, primals: Primals
) -> tuple[tuple[PyTree, PyTree], tuple[list, list]]:
    """`((output, new_state), (zs, operands))` of step t.

    The output is a pair `(output, new_state)` itself if the steps have restarts.

    Args:
        cell: An `AffineCell`.
        product: What computes its products, as `AffineCell.chain` takes it.
        steps: The steps, without the states to restart from.
        t: The step, an int32 scalar.
        primals: The arguments of the step: inputs `[batch, depth]`, the state before
            it, each leaf `[batch, size]`.
    """
    params, inputs, state, restart_states = primals
    steps = steps.with_restart_states(restart_states)
    arguments = steps.step_inputs(t, inputs, state)
    output, new_state, zs, operands = cell.chain(product, params, *arguments)
    new_state, output = steps.mask_step(t, state, new_state, output)
    output = output if steps.restarts is None else (output, new_state)
    return (output, new_state), (zs, operands)
