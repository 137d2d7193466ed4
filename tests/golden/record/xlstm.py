"""Records `xlstm.npz` from the package of the xLSTM, in float64.

It needs PyTorch 2.13 for the CPU, and `xlstm` 2.0.6, of whose own requirements only
`setuptools` (with pip's `--no-deps`):

    python -m tests.golden.record.xlstm

Two runs on one machine write the same arrays. The keys are a case's name and then

- `params/...`: the parameters, under the names and in the layout of this library;
- `x`, and `state/0`, ...: the inputs, batch first, and the initial state, if not zero;
- `outputs`, `final/0`, ...: what is computed step by step;
- `parallel`, `chunkwise`, of the mLSTM from the zero state: the outputs by its other
  two forms;
- `grads/...`: gradients of the sum of the squares of outputs and final state.

`init/...` are initial values of biases.
"""

import pathlib

import numpy as np
import torch
from xlstm.blocks.mlstm import backends
from xlstm.blocks.mlstm.cell import mLSTMCell, mLSTMCellConfig
from xlstm.blocks.slstm.cell import sLSTMCell_vanilla, sLSTMCellConfig
from xlstm.blocks.slstm.src import vanilla

BATCH, TIME, DEPTH, HEADS, SIZE = 2, 6, 3, 2, 3
UNITS = HEADS * SIZE


def draw(*shape: int) -> torch.Tensor:
    """Random values that derivatives are taken with respect to."""
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def mlstm_parts(params, x):
    """The output gate, and the arguments of the package's functions for all steps."""
    z = x @ params["kernel"] + params["bias"]
    *vectors, o, i, f = z.split([UNITS] * 4 + [HEADS] * 2, -1)
    heads = [y.reshape(BATCH, TIME, HEADS, SIZE).transpose(1, 2) for y in vectors]
    gates = [y.transpose(1, 2)[..., None] for y in (i, f)]
    return o.sigmoid(), (*heads, *gates)


def mlstm_outputs(o, h):
    """`[batch, heads, time, size]` after the output gate, batch first."""
    return o * h.transpose(1, 2).reshape(BATCH, TIME, UNITS)


def mlstm(params, x, state):
    """`(outputs, final)` of the mLSTM, step by step."""
    o, parts = mlstm_parts(params, x)
    c, n, m = state
    carry, hs = (c, n[..., None], m[..., None, None]), []
    for t in range(TIME):
        step = [part[:, :, t : t + 1].clone() for part in parts]
        h, carry = backends.recurrent_step_stabilized_simple(*carry, *step)
        hs.append(h)
    c, n, m = carry
    return mlstm_outputs(o, torch.cat(hs, 2)), (c, n[..., 0], m[..., 0, 0])


def other_forms(params, x):
    """The outputs of the mLSTM from the zero state, by the package's other forms."""
    o, (q, k, v, i, f) = mlstm_parts(params, x)
    parallel = backends.parallel_stabilized_simple(q, k, v, i, f)
    flat = [y.contiguous() for y in (q, k, v, i[..., 0], f[..., 0])]
    chunkwise = backends.chunkwise_simple(*flat, chunk_size=2)
    forms = {"parallel": parallel, "chunkwise": chunkwise}
    return {name: mlstm_outputs(o, h) for name, h in forms.items()}


def slstm(params, x, state):
    """`(outputs, final)` of the sLSTM."""
    recurrent, bias = params["recurrent_kernel"].transpose(1, 2), params["bias"]
    pointwise = vanilla.slstm_pointwise_function_registry["slstm"]
    given = (x @ params["kernel"]).transpose(0, 1), torch.stack(state), recurrent, bias
    states, final, _ = vanilla.slstm_forward(*given, pointwise)
    return states[0, 1:].transpose(0, 1), tuple(final)


def mlstm_data():
    """`(params, state)` of the mLSTM."""
    columns = 4 * UNITS + 2 * HEADS
    params = {"kernel": draw(DEPTH, columns), "bias": draw(columns)}
    memory = BATCH, HEADS, SIZE, SIZE
    return params, [draw(*memory), draw(*memory[:3]), draw(*memory[:2])]


def slstm_data():
    """`(params, state)` of the sLSTM; its normalizer is positive."""
    params = {
        "kernel": draw(DEPTH, 4 * UNITS),
        "recurrent_kernel": draw(HEADS, SIZE, 4 * SIZE),
        "bias": draw(4 * UNITS),
    }
    state = [draw(BATCH, UNITS) for _ in range(4)]
    state[2].data = state[2].data.abs() + 0.5
    return params, state


def run(cell, data, from_zeros) -> dict[str, torch.Tensor]:
    """One case, without its name."""
    params, state = data()
    x = draw(BATCH, TIME, DEPTH)
    given = {f"params/{name}": value for name, value in params.items()} | {"x": x}
    if from_zeros:
        state = [torch.zeros_like(leaf) for leaf in state]
    else:
        given |= {f"state/{k}": leaf for k, leaf in enumerate(state)}
    outputs, final = cell(params, x, state)
    sum(made.square().sum() for made in (outputs, *final)).backward()
    return {
        **given,
        "outputs": outputs,
        **{f"final/{k}": leaf for k, leaf in enumerate(final)},
        **(other_forms(params, x) if cell is mlstm and from_zeros else {}),
        **{f"grads/{name}": leaf.grad for name, leaf in given.items()},
    }


def initial_biases() -> dict[str, torch.Tensor]:
    """The biases that the package starts from, where they are not random."""
    m = mLSTMCell(mLSTMCellConfig(1, UNITS, HEADS))
    options = {"backend": "vanilla", "dtype": "float32", "batch_size": BATCH}
    s = sLSTMCell_vanilla(sLSTMCellConfig(UNITS, HEADS, **options))
    return {"init/mlstm_f": m.fgate.bias, "init/slstm": s._bias_}


def main() -> None:
    """Write the file."""
    cases = {
        "mlstm": (mlstm, mlstm_data, False),
        "mlstm_zero": (mlstm, mlstm_data, True),
        "slstm": (slstm, slstm_data, False),
        "slstm_zero": (slstm, slstm_data, True),
    }
    tensors = initial_biases()
    for seed, (name, case) in enumerate(cases.items()):
        torch.manual_seed(seed)
        tensors |= {f"{name}/{key}": leaf for key, leaf in run(*case).items()}
    arrays = {key: leaf.detach().numpy() for key, leaf in tensors.items()}
    path = pathlib.Path(__file__).resolve().parents[1] / "xlstm.npz"
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
