"""Records `delta_rule.npz` from two packages of the delta rule, in float64.

It needs PyTorch 2.13 for the CPU, `transformers` 5.24, and `fla-core` 0.6.0 with
`einops` (with pip's `--no-deps`, without Triton):

    python -m tests.golden.record.delta_rule

Two runs on one machine write the same arrays. The keys are a case's name and then

- `params/...`: the parameters, under the names and in the layout of this library;
- `x`, and `state/0`: the inputs, batch first, and the initial state, if not zero;
- `outputs`, `final/0`: what is computed, and `grads/...`: gradients of the sum of the
  squares of both.

The cases whose names end with `_neg` have eigenvalues in (-1, 1).
"""

import importlib.metadata
import pathlib
import runpy
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from transformers.models.qwen3_next import modeling_qwen3_next as qwen

BATCH, TIME, DEPTH, HEADS, KEY, VALUE = 2, 19, 3, 2, 4, 3
KEYS, UNITS = HEADS * KEY, HEADS * VALUE
# Importing `fla` requires Triton, but this file does not.
NAIVE = importlib.metadata.distribution("fla-core").locate_file("fla/ops/delta_rule")
fla = runpy.run_path(str(NAIVE / "naive.py"))["delta_rule_recurrence"]


def in_chunks(q, k, v, g, b, state):
    """The gated delta rule of Qwen3-Next, in chunks."""
    rule = qwen.torch_chunk_gated_delta_rule
    return rule(q, k, v, g, b, 8, state, True, use_qk_l2norm_in_kernel=True)


def in_steps(q, k, v, g, b, state):
    """The gated delta rule of Qwen3-Next, step by step."""
    rule = qwen.torch_recurrent_gated_delta_rule
    return rule(q, k, v, g, b, state, True, use_qk_l2norm_in_kernel=True)


def without_decay(q, k, v, g, b, state):
    """The delta rule of `flash-linear-attention`, step by step."""
    q, k, v, b = (x.transpose(1, 2) for x in (qwen.l2norm(q), qwen.l2norm(k), v, b))
    h, final = fla(q, k, v, b, state)
    return h.transpose(1, 2), final


def layer(rule, factor, p, x, state):
    """`(outputs, final)`; the factor of b is 2 for eigenvalues in (-1, 1), else 1."""
    z = x @ p["kernel"] + p["bias"]
    sizes = [KEYS, KEYS, UNITS, HEADS, HEADS, UNITS]
    q, k, v, b, *rest = z.split(sizes if "a_log" in p else sizes[:4], -1)
    q, k, v = (F.silu(y).unflatten(-1, (HEADS, -1)) for y in (q, k, v))
    g = -p["a_log"].exp() * F.softplus(rest[0]) if rest else None
    h, final = rule(q, k, v, g, factor * b.sigmoid(), state)
    outputs = F.rms_norm(h, (VALUE,), p["norm_scale"], eps=1e-5).flatten(-2)
    return (outputs * F.silu(rest[1]) if rest else outputs), final


def run(rule, factor, from_zeros) -> dict[str, torch.Tensor]:
    """One case, without its name."""
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64).requires_grad_()
    is_gated = rule is not without_decay
    columns = 2 * KEYS + UNITS + HEADS + (HEADS + UNITS if is_gated else 0)
    shapes = {"kernel": (DEPTH, columns), "bias": (columns,), "norm_scale": (VALUE,)}
    shapes |= {"a_log": (HEADS,)} if is_gated else {}
    params = {name: draw(*shape) for name, shape in shapes.items()}
    state = draw(BATCH, HEADS, KEY, VALUE)
    given = {f"params/{name}": value for name, value in params.items()}
    given["x"] = x = draw(BATCH, TIME, DEPTH)
    given |= {} if from_zeros else {"state/0": state}
    outputs, final = layer(rule, factor, params, x, None if from_zeros else state)
    sum(made.square().sum() for made in (outputs, final)).backward()
    grads = {f"grads/{name}": leaf.grad for name, leaf in given.items()}
    return {**given, "outputs": outputs, "final/0": final, **grads}


# Both packages compute in float32, whatever they are given.
@mock.patch.object(torch, "float32", torch.float64)
@mock.patch.object(torch.Tensor, "float", torch.Tensor.double)
def main() -> None:
    """Write the file."""
    torch.set_default_dtype(torch.float64)
    cases = {
        "gated_neg": (in_chunks, 2, False),
        "gated_zero": (in_steps, 1, True),
        "delta": (without_decay, 1, False),
        "delta_zero_neg": (without_decay, 2, True),
    }
    arrays = {}
    for seed, (name, case) in enumerate(cases.items()):
        torch.manual_seed(seed)
        arrays |= {f"{name}/{k}": v.detach().numpy() for k, v in run(*case).items()}
    path = pathlib.Path(__file__).resolve().parents[1] / "delta_rule.npz"
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
