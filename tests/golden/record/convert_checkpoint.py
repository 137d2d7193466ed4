"""Records `convert/torch_checkpoint.npz`: a PyTorch checkpoint as arrays.

`docs/coming_from/pytorch.md` loads it. It needs PyTorch for the CPU, and NumPy:

    python -m tests.golden.record.convert_checkpoint

Two runs on one machine write the same arrays, in float32: the `state_dict` that was
saved and loaded again, under its own names; `x`, with NaN in the padding, and
`lengths`, which the model is given; `outputs`, `h`, `c` of its LSTM and its `logits`.
"""

import pathlib
import tempfile

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

BATCH, TIME, DEPTH, UNITS, LABELS = 3, 7, 4, 6, 2


class Tagger(torch.nn.Module):
    """A label for each step, from two layers of an LSTM in both directions."""

    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.LSTM(
            DEPTH, UNITS, num_layers=2, bidirectional=True, batch_first=True
        )
        self.head = torch.nn.Linear(2 * UNITS, LABELS)

    def forward(self, x, lengths):
        """All that the model computes."""
        packed = pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        outputs, (h, c) = self.rnn(packed)
        outputs, _ = pad_packed_sequence(
            outputs, batch_first=True, total_length=x.shape[1]
        )
        return {"outputs": outputs, "h": h, "c": c, "logits": self.head(outputs)}


def main() -> None:
    """Write the file."""
    torch.manual_seed(0)
    trained, lengths = Tagger(), torch.tensor([4, 7, 2])
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "tagger.pt"
        torch.save(trained.state_dict(), file)
        state_dict = torch.load(file, map_location="cpu", weights_only=True)
    x = torch.randn(BATCH, TIME, DEPTH)
    x[torch.arange(TIME) >= lengths[:, None]] = torch.nan
    with torch.no_grad():
        made = trained(x, lengths)
    arrays = {**state_dict, "x": x, "lengths": lengths, **made}
    path = pathlib.Path(__file__).resolve().parents[1] / "convert"
    arrays = {name: array.numpy() for name, array in arrays.items()}
    np.savez_compressed(path / "torch_checkpoint.npz", **arrays)


if __name__ == "__main__":
    main()
