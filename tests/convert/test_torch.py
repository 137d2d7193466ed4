"""What only PyTorch has: states of modules, tensors, and models around a module."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, bound

import jaxrnn
from jaxrnn.convert import torch

GRU = jaxrnn.CudnnCompatibleGRUCell(4)
PROJECTED = jaxrnn.LSTMCell(4, num_proj=2, forget_bias=0)


class Tensor:
    """A tensor with what converters may use of PyTorch's, and its refusals."""

    def __init__(self, array, dtype, on_cpu=False, attached=True):
        self.array, self.dtype = array, f"torch.{dtype}"
        self.on_cpu, self.attached = on_cpu, attached

    def detach(self):
        return Tensor(self.array, self.dtype[6:], self.on_cpu, False)

    def cpu(self):
        return Tensor(self.array, self.dtype[6:], True, self.attached)

    def float(self):
        array = self.array.astype(np.float32)
        return Tensor(array, "float32", self.on_cpu, self.attached)

    def __array__(self, dtype=None, copy=None):
        if self.dtype == "torch.bfloat16" or not self.on_cpu or self.attached:
            raise TypeError("Can't convert")
        return self.array


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors(dtype):
    cell = bound(PROJECTED, dtype=dtype)
    weights = torch.save(cell)
    assert all(array.flags.writeable for array in weights.values())
    assert_same(torch.load({k: Tensor(v, dtype) for k, v in weights.items()}), cell)


def test_other_modules_of_a_model_are_passed_over():
    weights = torch.save(bound(GRU), "a.")
    more = {"weight": np.ones(2), "a.out.weight_x": np.ones(2), "b.weight_ih_l0": 1}
    assert_same(torch.load(weights | more, "a."), bound(GRU))


def test_states_of_two_layers_in_two_directions_under_jit():
    h, c = (jnp.arange(24.0).reshape(4, 2, 3) + i for i in range(2))
    both = {"bidirectional": True}
    fw, bw = jax.jit(functools.partial(torch.load_state, **both))((h, c))
    assert len(fw) == len(bw) == 2
    chex.assert_trees_all_equal(fw[1], jaxrnn.LSTMStateTuple(c[2], h[2]))
    chex.assert_trees_all_equal(torch.save_state((fw, bw), **both), (h, c))
    layer = torch.save_state(([fw[0]], [bw[0]]), **both)
    bare = torch.save_state((fw[0], bw[0]), **both)
    chex.assert_trees_all_equal(bare, layer, (h[:2], c[:2]))
    one = torch.load_state(h[:1])
    chex.assert_trees_all_equal(torch.save_state(one), h[:1])
