"""Runs code of PyTorch that asks for float32 in float64."""

import contextlib
from unittest import mock


@contextlib.contextmanager
def in_float64(torch):
    """Replaces float32 by float64 in the module `torch`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            mock.patch.object(torch, "float32", torch.float64),
            mock.patch.object(torch, "float", torch.float64),
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        ):
            yield
    finally:
        torch.set_default_dtype(before)
