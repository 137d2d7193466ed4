"""What cells of other libraries cannot express: peepholes, projections, activations."""

import dataclasses
from collections.abc import Collection

import numpy as np

from .._cells.activations import resolve_activation
from ._layer_weights import GRU, GRU_AFTER, LSTM, LayerWeights


def check_plain(where: str, name: str, layer: LayerWeights, library: str) -> None:
    """Raises ValueError for peepholes and projections, which the library lacks."""
    for field in ("peepholes", "projection"):
        if getattr(layer, field) is not None:
            raise ValueError(
                f"{where}: `{name}` must have no {field}, which the LSTM of {library} "
                "does not have, got an LSTMCell with such. Train one without."
            )


def check_resets(
    where: str, name: str, layer: LayerWeights, library: str, kind: str
) -> None:
    """Raises ValueError for a GRU of another kind than the library's."""
    if layer.kind not in (GRU, GRU_AFTER) or layer.kind == kind:
        return
    names = {GRU: "GRUCell", GRU_AFTER: "CudnnCompatibleGRUCell"}
    when = "before" if kind == GRU else "after"
    raise ValueError(
        f"{where}: `{name}` must be a {names[kind]}, as the GRU of {library} resets "
        f"{when} the product, got a {names[layer.kind]}. Weights of one do not fit the "
        f"other: train a {names[kind]}."
    )


def check_activation(
    where: str, name: str, layer: LayerWeights, library: str, wanted: str
) -> None:
    """Raises ValueError for another activation than the library's."""
    got = resolve_activation(where, layer.activation)
    if got is not resolve_activation(where, wanted):
        raise ValueError(
            f"{where}: `{name}` must have the activation {wanted}, which is that of "
            f"{library}, got {getattr(got, '__name__', got)}."
        )


def check_names(
    where: str, name: str, weights: Collection[str], wanted: Collection[str]
) -> None:
    """Raises ValueError unless the weights have these names and no others."""
    missing = [each for each in wanted if each not in weights]
    unknown = [str(each) for each in weights if each not in wanted]
    if missing or unknown:
        faults = [f"missing: {', '.join(missing)}"] if missing else []
        faults += [f"not known: {', '.join(unknown)}"] if unknown else []
        raise ValueError(
            f"{where}: `{name}` must hold {', '.join(wanted)}; {'; '.join(faults)}."
        )


def bias_without(layer: LayerWeights, added: float) -> np.ndarray:
    """The bias for a library that adds `added` to the forget gate at run time."""
    if layer.kind != LSTM:
        return layer.bias
    return dataclasses.replace(layer, forget_bias=layer.forget_bias - added).whole_bias
