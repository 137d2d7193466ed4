"""Ensembles of models for the decoders."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import check_instance, check_is_cell
from .._base.cell_keys import cell_at_step
from .._base.errors import Verbatim
from .._base.expect import expect
from .._base.inputs import as_arrays
from .._base.typing import Array, DType, PyTree, RNNCellLike, Size
from .._drivers.first_step import call_start
from ._ids import check_floating, is_minus_infinity, log_softmax, score_dtype


def ensemble(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combines models into one model that predicts the mean of their probabilities.

    Pass the result to any decoder or to `score`:

        together = decode.ensemble([model_a, model_b])
        decode.beam_search(
            **together, start_ids=start_ids, end_id=0, max_time=20, beam_width=4
        )

    The models may have different cells, sizes and states, but must share a vocabulary.

    Args:
        models: A list or tuple with one dict per model. Each dict holds the arguments
            `cell`, `embed`, `project` and `initial_state`; see `greedy`.

    Returns:
        A dict of the same four arguments, for all models at once. Inputs, states and
        outputs are tuples with one entry per model. `project` returns the logarithm of
        the mean of the models' probabilities, in float32 or float64. A model whose
        logits in a row are all -inf has probability 0 for every id of the row.

    Raises:
        TypeError: If `models` is not a list or tuple of dicts, or an entry has the
            wrong type.
        ValueError: If `models` is empty, or a dict does not have exactly the keys
            `cell`, `embed`, `project` and `initial_state`; in the loop, if the models'
            logits differ in shape.
    """
    check_instance("models", models, list | tuple, "a list of dicts")
    expect(models, "models", "hold at least one model", models)
    for i, model in enumerate(models):
        _check_model(f"models[{i}]", model)
    states = [
        as_arrays(f"models[{i}]['initial_state']", model["initial_state"])
        for i, model in enumerate(models)
    ]

    def embed(ids: Array) -> tuple[PyTree, ...]:
        return tuple(model["embed"](ids) for model in models)

    def project(outputs: tuple[PyTree, ...]) -> Array:
        pairs = zip(models, outputs, strict=True)
        return _log_mean([model["project"](output) for model, output in pairs])

    return {
        "cell": _Cells(tuple(model["cell"] for model in models)),
        "embed": embed,
        "project": project,
        "initial_state": tuple(states),
    }


def _check_model(name: str, model: Mapping[str, Any]) -> None:
    fix = "For example, pass `dict(cell=cell.bind(params), embed=embed, ...)`."
    check_instance(name, model, Mapping, "a dict", fix)
    keys = ["cell", "embed", "initial_state", "project"]
    fix = "Pass arguments such as `start_ids` to the decoding function."
    must = f"have the keys {', '.join(keys)}"
    expect(sorted(model) == keys, name, must, Verbatim(sorted(model)), fix)
    check_is_cell(f"{name}['cell']", model["cell"])
    for part in ("embed", "project"):
        check_instance(f"{name}['{part}']", model[part], Callable, "a function")


def _log_mean(logits: list[Array]) -> Array:
    """The logarithm of the models' mean probabilities, `[batch, vocab]`."""
    shape = jnp.shape(logits[0])
    for i, each in enumerate(logits):
        what = f"models[{i}]['project'](output)"
        check_floating(what, each)
        must = f"be {list(shape)} to match `models[0]`"
        expect(each.shape == shape, what, must, each)
    dtype = score_dtype(logits)
    wide = jnp.stack([each.astype(dtype) for each in logits])
    log_probs = log_softmax(wide)
    # If all models assign an id the probability 0, do not take the logarithm of this 0,
    # because the derivative of the logarithm at 0 is infinite.
    exists = jnp.any(~is_minus_infinity(log_probs), axis=0)
    summed = jax.nn.logsumexp(jnp.where(exists[None], log_probs, 0), axis=0)
    return jnp.where(exists, summed - math.log(len(logits)), -jnp.inf)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Cells:
    """Several cells that run as one cell; inputs, states and outputs are tuples."""

    cells: tuple[RNNCellLike, ...]

    @property
    def state_size(self) -> Size:
        return tuple(cell.state_size for cell in self.cells)

    @property
    def output_size(self) -> Size:
        return tuple(cell.output_size for cell in self.cells)

    def zero_state(self, batch_size: int, dtype: DType) -> PyTree:
        """The zero states of all cells."""
        return tuple(cell.zero_state(batch_size, dtype) for cell in self.cells)

    def start(self, state: PyTree) -> PyTree:
        """Prepares the states that have read-only parts; see `RNNCell.start`."""
        return tuple(
            call_start(cell, own) for cell, own in zip(self.cells, state, strict=True)
        )

    def at_step(self, t: Array) -> "_Cells":
        """The cells, each with its random key for step `t`."""
        return _Cells(tuple(cell_at_step(cell, t) for cell in self.cells))

    def __call__(self, inputs: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs one step of each cell."""
        steps = zip(self.cells, inputs, state, strict=True)
        outputs, states = zip(*(cell(x, s) for cell, x, s in steps), strict=True)
        return outputs, states
