"""PyTorch on the CPU: `nn.LSTM`, `nn.GRU`, `nn.RNN`, time-major.

Lengths by packed sequences: inputs and outputs are padded tensors, as in all peers.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..core.built import LEARNING_RATE, RESET_AFTER, Built, LeftOutError, Variant
from ..core.cases import Case
from ..core.data import Data
from ..core.layouts import Layers, reader, side_by_side, to_gates
from ..core.results import forward_results, step_results, train_results

USES = ("torch",)

# Classes, and the order of their blocks.
LAYERS = {
    "lstm": (torch.nn.LSTM, "ifgo"),
    "gru": (torch.nn.GRU, "ruc"),
    "gru_after": (torch.nn.GRU, "ruc"),
    "rnn": (torch.nn.RNN, "a"),
}


def build(case: Case, data: Data) -> Built:
    """Each mode with and without oneDNN."""
    if case.layer_cell not in LAYERS:
        raise LeftOutError("PyTorch has no such cell")
    set_up()
    variants = {}
    for name, with_onednn in (("oneDNN", True), ("no oneDNN", False)):
        run, read = MODES[case.mode](Net(case, data))
        variants[name] = Variant(_switched(run, with_onednn), read)
    return Built(variants, RESET_AFTER if case.cell == "gru" else "")


def set_up() -> None:
    """All cores, and no slow denormal numbers: as in XLA and TensorFlow."""
    torch.set_num_threads(int(os.environ["BENCHMARK_CORES"]))
    torch.set_flush_denormal(True)


def _switched(run: Callable[[], Any], with_onednn: bool) -> Callable[[], Any]:
    def switched():
        torch.backends.mkldnn.set_flags(with_onednn)
        return run()

    return switched


class Net:
    """The module with the data of a case on a device; sequences `[T, B, ...]`."""

    def __init__(self, case: Case, data: Data, device: str = "cpu"):
        self.case, self.data = case, data
        self.place = {"device": device, "dtype": getattr(torch, case.dtype)}
        kind, self.order = LAYERS[case.layer_cell]
        self.module = kind(case.depth, case.units, len(case.layer_depths))
        self.module.load_state_dict(
            {name: torch.tensor(x) for name, x in self._to_params(data.weights).items()}
        )
        self.module.to(**self.place)
        self._read = reader(self._to_params, data.weights)
        self.inputs = self._sequences(data.inputs)
        self.lengths = None if data.lengths is None else torch.tensor(data.lengths)
        self.state = self._stack(data.state)
        self.cotangents = (
            self._sequences(data.output_cotangents),
            *self._stack(data.state_cotangents),
        )

    def _to_params(self, layers: Layers) -> dict[str, np.ndarray]:
        """The parameters by name; of the two biases the second is zero."""
        params = {}
        for number, weights in enumerate(layers):
            gates = to_gates(self.case.layer_cell, weights, 1)
            x, h, b = side_by_side(gates, self.order)
            params[f"weight_ih_l{number}"] = x.T
            params[f"weight_hh_l{number}"] = h.T
            params[f"bias_ih_l{number}"] = b
            params[f"bias_hh_l{number}"] = np.zeros_like(b)
        return params

    def _stack(self, state: Layers) -> tuple[torch.Tensor, ...]:
        """`(h, c)` or `(h,)`, each `[layers, B, H]`."""
        return tuple(
            torch.tensor(np.stack([layer[name] for layer in state])).to(**self.place)
            for name in reversed(self.case.state_names)
        )

    def _sequences(self, sequences: np.ndarray) -> torch.Tensor:
        time_major = np.ascontiguousarray(np.swapaxes(sequences, 0, 1))
        return torch.tensor(time_major).to(**self.place)

    def __call__(self) -> tuple[torch.Tensor, ...]:
        """The outputs `[T, B, H]` and the parts of the state."""
        inputs = self.inputs
        if self.lengths is not None:
            inputs = pack_padded_sequence(inputs, self.lengths, enforce_sorted=False)
        state = self.state if len(self.state) == 2 else self.state[0]
        outputs, state = self.module(inputs, state)
        if self.lengths is not None:
            outputs, _ = pad_packed_sequence(outputs, total_length=self.case.time)
        return outputs, *(state if isinstance(state, tuple) else (state,))

    def loss(self) -> torch.Tensor:
        """The sum of outputs and state times their cotangents."""
        pairs = zip(self(), self.cotangents, strict=True)
        return sum((result * weight).sum() for result, weight in pairs)

    def read_params(self, params: dict[str, torch.Tensor]) -> Layers:
        """Parameters, or gradients, in TensorFlow's layout."""
        return self._read({name: _array(value) for name, value in params.items()})

    def read_state(self, state: tuple[torch.Tensor, ...]) -> Layers:
        """The parts of a state as a dict for each layer."""
        names = reversed(self.case.state_names)
        parts = {n: _array(part) for n, part in zip(names, state, strict=True)}
        return [
            {name: part[number] for name, part in parts.items()}
            for number in range(len(self.data.weights))
        ]


def _batch_major(sequences: torch.Tensor) -> np.ndarray:
    return np.swapaxes(_array(sequences), 0, 1)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()


Program = tuple[Callable[[], Any], Callable[[Any], dict[str, np.ndarray]]]


def _forward(net: Net) -> Program:
    def read(raw):
        outputs, *state = raw
        return forward_results(net.data, _batch_major(outputs), net.read_state(state))

    return torch.inference_mode()(net.__call__), read


def _train(net: Net) -> Program:
    names = [name for name, _ in net.module.named_parameters()]
    for leaf in (net.inputs, *net.state):
        leaf.requires_grad_()
    leaves = [*net.module.parameters(), net.inputs, *net.state]

    def run():
        loss = net.loss()
        return loss, torch.autograd.grad(loss, leaves)

    def read(raw):
        loss, gradients = raw
        params = dict(zip(names, gradients, strict=False))
        inputs, *state = gradients[len(names) :]
        return train_results(
            _array(loss),
            net.read_params(params),
            _batch_major(inputs),
            net.read_state(state),
        )

    return run, read


def _step(net: Net) -> Program:
    optimiser = torch.optim.Adam(net.module.parameters(), LEARNING_RATE, fused=True)
    before = net.read_params(
        {name: value.clone() for name, value in net.module.named_parameters()}
    )

    def run():
        optimiser.zero_grad()
        loss = net.loss()
        loss.backward()
        optimiser.step()
        return loss

    def read(loss):
        after = net.read_params(dict(net.module.named_parameters()))
        return step_results(_array(loss), before, after)

    return run, read


MODES = {"forward": _forward, "stream": _forward, "train": _train, "step": _step}
