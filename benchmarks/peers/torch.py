"""PyTorch: `nn.LSTM`, `nn.GRU`, time-major.

Lengths use packed sequences. Inputs and outputs are padded tensors, as for all peers.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .. import results
from ..built import LeftOutError, Variant, Variants
from ..cases import Case
from ..data import Data, Layers, forget_bias

USES = ("torch",)

# The class for each cell, and the places of its gates in TensorFlow's order.
LAYERS = {
    "lstm": (torch.nn.LSTM, [0, 2, 1, 3]),
    "gru_after": (torch.nn.GRU, [0, 1, 2]),
}


def build(case: Case, data: Data) -> Variants:
    """The variants: with and without oneDNN."""
    if case.layer_cell not in LAYERS:
        raise LeftOutError("PyTorch has no such cell")
    # As XLA and TensorFlow do, use all cores and flush denormal numbers.
    torch.set_num_threads(int(os.environ["BENCHMARK_CORES"]))
    torch.set_flush_denormal(True)
    variant = functools.partial(_variant, case, data)
    choices = {"oneDNN": True, "no oneDNN": False}
    return {name: functools.partial(variant, on) for name, on in choices.items()}


def _variant(case: Case, data: Data, with_onednn: bool) -> Variant:
    net = Net(case, data)
    run = _make_run(net, case.mode)

    def switched():
        torch.backends.mkldnn.set_flags(with_onednn)
        return run()

    return Variant(switched, functools.partial(_read, case, data, net))


def _read(case: Case, data: Data, net: "Net", raw: Any) -> dict[str, np.ndarray]:
    if case.mode != "forward":
        loss, found = raw
        raw = _array(loss), found
    return results.read(case.mode, data, net, raw)


class Net:
    """The module and the data of a case; sequences are `[T, B, ...]`."""

    def __init__(self, case: Case, data: Data):
        self.case, self.data = case, data
        kind, self.order = LAYERS[case.layer_cell]
        self.module = kind(case.depth, case.units, len(case.layer_depths))
        self.module.load_state_dict(
            {name: torch.tensor(x) for name, x in self._to_params(data.weights).items()}
        )
        self.inputs = self._sequences(data.inputs)
        self.lengths = None if data.lengths is None else torch.tensor(data.lengths)
        self.state = self._stack(data.state)
        self.cotangents = (
            self._sequences(data.output_cotangents),
            *self._stack(data.state_cotangents),
        )

    def _to_params(self, layers: Layers) -> dict[str, np.ndarray]:
        """The parameters by name. The second of the two biases is zero."""
        params = {}
        for number, weights in enumerate(layers):
            kernel = self._reordered(weights["kernel"])
            x, h = np.split(kernel.T, [-self.case.units], axis=1)
            bias = self._reordered(weights["bias"] + forget_bias(self.case))
            params[f"weight_ih_l{number}"], params[f"weight_hh_l{number}"] = x, h
            params[f"bias_ih_l{number}"] = bias
            params[f"bias_hh_l{number}"] = np.zeros_like(bias)
        return params

    def _reordered(self, array: np.ndarray) -> np.ndarray:
        """The gates in the other library's order; the inverse of itself."""
        gates = np.split(array, len(self.order), axis=-1)
        return np.concatenate([gates[place] for place in self.order], axis=-1)

    def _stack(self, state: Layers) -> tuple[torch.Tensor, ...]:
        """`(h, c)` or `(h,)`, each `[layers, B, H]`."""
        return tuple(
            torch.tensor(np.stack([layer[name] for layer in state]))
            for name in reversed(self.case.state_names)
        )

    def _sequences(self, sequences: np.ndarray) -> torch.Tensor:
        sequences = np.ascontiguousarray(np.swapaxes(sequences, 0, 1))
        return torch.tensor(sequences)

    def __call__(self) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The outputs `[T, B, H]` and the arrays of the state."""
        inputs = self.inputs
        if self.lengths is not None:
            inputs = pack_padded_sequence(inputs, self.lengths, enforce_sorted=False)
        state = self.state if len(self.state) == 2 else self.state[0]
        outputs, state = self.module(inputs, state)
        if self.lengths is not None:
            outputs, _ = pad_packed_sequence(outputs, total_length=self.case.time)
        return outputs, state if isinstance(state, tuple) else (state,)

    def loss(self) -> torch.Tensor:
        """The sum of the outputs and the state, each times its cotangent."""
        outputs, state = self()
        pairs = zip((outputs, *state), self.cotangents, strict=True)
        return sum((result * weight).sum() for result, weight in pairs)

    def read_params(self, gradients: dict[str, torch.Tensor]) -> Layers:
        """The gradients by the parameters, in TensorFlow's layout."""
        layers = []
        for number in range(len(self.data.weights)):
            names = f"weight_ih_l{number}", f"weight_hh_l{number}", f"bias_ih_l{number}"
            x, h, bias = (_array(gradients[name]) for name in names)
            kernel = self._reordered(np.concatenate([x, h], axis=1).T)
            layers.append({"kernel": kernel, "bias": self._reordered(bias)})
        return layers

    def read_sequences(self, sequences: torch.Tensor) -> np.ndarray:
        """Inputs or outputs, batch-major."""
        return np.swapaxes(_array(sequences), 0, 1)

    def read_state(self, state: tuple[torch.Tensor, ...]) -> Layers:
        """A state as a list with a dict for each layer."""
        names = list(reversed(self.case.state_names))
        layers = zip(*map(_array, state), strict=True)
        return [dict(zip(names, parts, strict=True)) for parts in layers]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _make_run(net: Net, mode: str) -> Callable[[], Any]:
    """A function that runs a mode and returns the results for `results.read`."""
    if mode == "forward":
        return torch.inference_mode()(net.__call__)
    for leaf in (net.inputs, *net.state):
        leaf.requires_grad_()
    names, params = zip(*net.module.named_parameters(), strict=True)
    leaves = [*params, net.inputs, *net.state]

    def run():
        loss = net.loss()
        gradients = torch.autograd.grad(loss, leaves)
        by_params = dict(zip(names, gradients, strict=False))
        inputs, *state = gradients[len(names) :]
        return loss.detach(), (by_params, inputs, state)

    return run
