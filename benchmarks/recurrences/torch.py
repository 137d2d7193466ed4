"""PyTorch: the products of all steps at once, then a loop over time in Python."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

from ..core.built import Built, LeftOutError, Variant
from ..core.cases import Case
from ..peers.torch import set_up
from .data import Data, named

USES = ("torch",)


def build(case: Case, data: Data, name: str) -> Built:
    """One program."""
    if case.cell not in COEFFICIENTS:
        raise LeftOutError(f"written for {' and '.join(COEFFICIENTS)} alone")
    if case.group != "race":
        raise LeftOutError("not part of the growth")
    set_up()
    run = _forward if case.mode == "forward" else _train
    tensors = jax.tree.map(lambda x: torch.tensor(np.array(x)), _arrays(data))
    call = run(COEFFICIENTS[case.cell], *tensors)
    return Built({"": Variant(call, lambda raw: named(case.mode, raw))})


def _arrays(data: Data) -> tuple:
    return data.params, data.inputs, data.state, data.cotangents


def _unroll(coefficients: Callable, params: Any, xs: Any, h: Any) -> tuple:
    """Outputs and the last state."""
    a, b = coefficients(params, xs)
    outputs = []
    for a_t, b_t in zip(a.unbind(), b.unbind(), strict=True):
        h = a_t * h + b_t
        outputs.append(h)
    return torch.stack(outputs), h


def _forward(coefficients: Callable, params: Any, xs: Any, h: Any, _: Any) -> Callable:
    return torch.inference_mode()(lambda: _unroll(coefficients, params, xs, h))


def _train(
    coefficients: Callable, params: Any, xs: Any, h: Any, cotangents: Any
) -> Callable:
    leaves, tree = jax.tree.flatten((params, xs))
    for leaf in leaves:
        leaf.requires_grad_()

    def run() -> Any:
        results = _unroll(coefficients, params, xs, h)
        pairs = zip(results, cotangents, strict=True)
        loss = sum((result * weight).sum() for result, weight in pairs)
        return jax.tree.unflatten(tree, torch.autograd.grad(loss, leaves))

    return run


def _min_gru(params: Any, xs: Any) -> tuple:
    z, c = (xs @ params["kernel"] + params["bias"]).chunk(2, -1)
    candidate = torch.where(c >= 0, c + 0.5, torch.sigmoid(c))
    return torch.sigmoid(-z), torch.sigmoid(z) * candidate


def _rg_lru(params: Any, xs: Any) -> tuple:
    def gate(of: Any) -> Any:  # One block of units.
        return torch.sigmoid(xs @ of["w"][0] + of["b"][0])

    log_a = -8 * functional.softplus(params["a_param"]) * gate(params["a_gate"])
    scale = torch.sqrt(-torch.expm1(2 * log_a))
    return torch.exp(log_a), scale * gate(params["input_gate"]) * xs


COEFFICIENTS = {"MinGRU": _min_gru, "RGLRU": _rg_lru}
