"""What PyTorch's peers share."""

import os

import torch


def set_up() -> None:
    """All cores, and no slow denormal numbers: as XLA and TensorFlow do."""
    torch.set_num_threads(int(os.environ["BENCHMARK_CORES"]))
    torch.set_flush_denormal(True)
