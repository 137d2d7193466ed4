"""The input arrays of every peer, in TensorFlow's layout."""

import dataclasses

import numpy as np

from .cases import Case

Layers = list[dict[str, np.ndarray]]

RESETS = 0.01  # The share of the steps at which a row is reset.
# The gates in each kernel of a cell, by the prefix of the kernel's name. Their orders
# are input, new, forget, output in an LSTM, and reset, update, new in a GRU.
BLOCKS = {
    "lstm": {"": 4},
    "peephole": {"": 4},
    "gru": {"gates/": 2, "candidate/": 1},
    "gru_after": {"": 3},
}


@dataclasses.dataclass(frozen=True)
class Data:
    """The arrays of one case, float32.

    Attributes:
        weights: One dict per layer, with TensorFlow's names: kernels `[D + H, ...]`,
            biases, and diagonals `[H]`. The forget bias excludes the 1 that TensorFlow
            adds at run time. Empty for linear recurrences.
        inputs: `[B, T, D]`.
        lengths: `[B]`, int32, each in 1..T; or None.
        resets: Whether the state is reset to zeros before a step, bool `[B, T]`; or
            None.
        state: The initial state: one dict per layer, with `c` and `h` or only `h`,
            each `[B, H]`; other arrays for some recurrences.
        output_cotangents: Arrays like the outputs, usually `[B, T, H]`, zeros past each
            row's end. The loss is the sum of `outputs * output_cotangents` and
            `final_state * state_cotangents`. If the loss does not read the outputs, T
            is 0 here to save memory.
        state_cotangents: Arrays like `state`.
    """

    weights: Layers
    inputs: np.ndarray
    lengths: np.ndarray | None
    resets: np.ndarray | None
    state: Layers
    output_cotangents: np.ndarray
    state_cotangents: Layers

    @property
    def valid(self) -> np.ndarray | None:
        """Whether each step is valid, `[B, T, 1]`; None if all steps are."""
        if self.lengths is None:
            return None
        steps = np.arange(self.inputs.shape[1])
        return (steps < self.lengths[:, None])[..., None]


def make_data(case: Case) -> Data:
    """The arrays of a case, which are the same in every process."""
    rng = np.random.default_rng(0)
    lengths = _lengths(rng, case)
    time = case.time - case.burn_in if case.mode == "train" else 0
    cotangents = _normal(rng, case.batch, time, case.output_size)
    if lengths is not None:
        cotangents *= (np.arange(time) < lengths[:, None])[..., None]
    return Data(
        weights=[_weights(rng, case, depth) for depth in case.layer_depths],
        inputs=_normal(rng, case.batch, case.time, case.depth),
        lengths=lengths,
        resets=random_resets(case) if case.lengths == "resets" else None,
        state=_state(rng, case),
        output_cotangents=cotangents,
        state_cotangents=_state(rng, case),
    )


def _lengths(rng: np.random.Generator, case: Case) -> np.ndarray | None:
    if case.lengths in ("dense", "resets"):
        return None
    longest = case.time // {"uniform": 1, "short": 4}[case.lengths]
    return rng.integers(1, longest + 1, case.batch, np.int32)


def random_resets(case: Case) -> np.ndarray:
    """Whether each row is reset at each step, `[B, T]`."""
    return np.random.default_rng(1).random((case.time, case.batch)).T < RESETS


def _weights(rng: np.random.Generator, case: Case, depth: int) -> dict[str, np.ndarray]:
    weights, bound = {}, case.units**-0.5
    for prefix, gates in BLOCKS.get(case.layer_cell, {}).items():
        width = gates * case.units
        kernel = rng.uniform(-bound, bound, (depth + case.units, width))
        weights[f"{prefix}kernel"] = kernel.astype(np.float32)
        weights[f"{prefix}bias"] = 0.1 * _normal(rng, width)
    if case.layer_cell == "peephole":
        for gate in "fio":
            weights[f"w_{gate}_diag"] = 0.1 * _normal(rng, case.units)
    return weights


def _state(rng: np.random.Generator, case: Case) -> Layers:
    return [
        {
            name: _normal(rng, case.batch, *size)
            for name, size in case.state_sizes.items()
        }
        for _ in case.layer_depths
    ]


def forget_bias(case: Case) -> np.ndarray | float:
    """What TensorFlow adds to a bias at run time: 1 for the forget gate of an LSTM."""
    is_forget = np.array([0, 0, 1, 0], np.float32)
    return np.repeat(is_forget, case.units) if "c" in case.state_names else 0


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)
