"""jaxrnn with one of its implementations."""

import jax

import jaxrnn

from ..core.built import Built, LeftOutError
from ..core.cases import Case
from ..core.data import Data
from ..peers import _ours, jaxrnn as peer


def build(case: Case, data: Data, implementation: str) -> Built:
    """`dynamic_rnn` with an implementation.

    Raises:
        LeftOutError: If it cannot run the case on this device; with its reason.
    """
    if reason := why_not(case, implementation):
        raise LeftOutError(reason)
    return peer.build(case, data, implementation)


def why_not(case: Case, implementation: str) -> str | None:
    """Why an implementation cannot run a case on this device, if it cannot.

    It is lowered for the shapes alone, as that is when it is refused.
    """
    cell = _ours.make_cell(case)
    inputs = jax.ShapeDtypeStruct((case.time, case.batch, case.depth), case.dtype)

    def run(key, inputs):
        outputs, _ = jaxrnn.dynamic_rnn(
            cell.bind(cell.init(key, inputs[0])),
            inputs,
            dtype=inputs.dtype,
            time_major=True,
            implementation=implementation,
        )
        return outputs

    try:
        jax.jit(run).lower(jax.eval_shape(lambda: jax.random.key(0)), inputs)
    except ValueError as error:
        return str(error).partition(" Leave it out")[0]
    return None
