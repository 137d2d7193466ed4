"""Records `convert/torch.npz` from live PyTorch, in float64.

It needs PyTorch 2.13, for the CPU, and NumPy:

    python -m tests.golden.record.convert_torch

Two runs on one machine write the same arrays. The keys are a case's name and then

- `weights/...`: the `state_dict`, under the prefix `rnn.`;
- `x`, `h0` and, of an LSTM, `c0`: what the module is given, with the batch first;
- `outputs`, `h`, `c`: what it gives;
- `grads/...`, `grads/x`: gradients of the sum of the squares of all that it gives.
"""

import pathlib

import numpy as np
import torch

BATCH, TIME, DEPTH, UNITS = 2, 4, 3, 4
CASES = {
    "lstm": (torch.nn.LSTM, {}),
    "lstm_no_bias": (torch.nn.LSTM, {"bias": False}),
    "lstm_two_layers": (torch.nn.LSTM, {"num_layers": 2}),
    "lstm_projected": (torch.nn.LSTM, {"num_layers": 2, "proj_size": 2}),
    "lstm_both": (torch.nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    "lstm_projected_both": (
        torch.nn.LSTM,
        {"num_layers": 2, "bidirectional": True, "proj_size": 3},
    ),
    "gru": (torch.nn.GRU, {}),
    "gru_no_bias": (torch.nn.GRU, {"bias": False}),
    "gru_both": (torch.nn.GRU, {"num_layers": 2, "bidirectional": True}),
    "rnn_tanh": (torch.nn.RNN, {"num_layers": 2}),
    "rnn_relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "rnn_relu_both": (torch.nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
}


def run(kind, options) -> dict[str, np.ndarray]:
    """One case, without its name."""
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)
    module = kind(DEPTH, UNITS, batch_first=True, dtype=torch.float64, **options)
    for weight in module.parameters():
        weight.data = 0.7 * draw(*weight.shape)
    rows = module.num_layers * (2 if module.bidirectional else 1)
    x = draw(BATCH, TIME, DEPTH).requires_grad_()
    state = [draw(rows, BATCH, module.proj_size or UNITS)]
    if kind is torch.nn.LSTM:
        state.append(draw(rows, BATCH, UNITS))
    outputs, final = module(x, tuple(state) if len(state) > 1 else state[0])
    final = final if len(state) > 1 else (final,)
    sum(made.square().sum() for made in (outputs, *final)).backward()
    names = ("h", "c")
    return {
        **{f"weights/rnn.{k}": v for k, v in module.state_dict().items()},
        "x": x,
        **{f"{name}0": value for name, value in zip(names, state, strict=False)},
        "outputs": outputs,
        **dict(zip(names, final, strict=False)),
        **{f"grads/rnn.{k}": v.grad for k, v in module.named_parameters()},
        "grads/x": x.grad,
    }


def main() -> None:
    """Write the file."""
    arrays = {}
    for seed, (name, case) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        arrays |= {f"{name}/{k}": v.detach().numpy() for k, v in run(*case).items()}
    path = pathlib.Path(__file__).resolve().parents[1] / "convert" / "torch.npz"
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
