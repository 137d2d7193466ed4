"""Layers with published weights: the page's functions against the layers' own packages.

`xlstm`: `mLSTMLayer` of xLSTM-7B. `transformers`: `RecurrentGemmaRecurrentBlock`. Heads
have the published sizes; there are two of them.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_page
from helpers import largest_error, usual_promotion

import jaxrnn

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "recipes" / "linear_attention.md"
TIME, LENGTHS = 70, [70, 33, 1]
TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def page():
    """The functions of the page."""
    with usual_promotion():
        return run_page.definitions(PAGE)


class XLSTM:
    package, width = "xlstm", 1024

    def __init__(self, page):
        from mlstm_kernels.torch.backend_module import mLSTMBackendConfig
        from xlstm.xlstm_large.model import mLSTMLayer, mLSTMLayerConfig

        backend = mLSTMBackendConfig(mode="inference", autocast_kernel_dtype="float32")
        self.module = mLSTMLayer(mLSTMLayerConfig(self.width, 2, mlstm_backend=backend))
        self.weights = drawn(self.module)
        self.cell = page.xlstm_cell(self.weights, heads=2)

    def theirs(self, x):
        outputs, (c, n, m) = self.module(x)
        scale = 256**0.5  # The package keeps k without its scale in the state.
        return outputs, (c / scale, n / scale, m[..., 0] if m.ndim == 3 else m)

    def inputs(self, x):
        return x, None

    def outputs(self, h, gate):
        return h @ self.weights["out_proj.weight"].T


class RecurrentGemma:
    package, width = "transformers", 512

    def __init__(self, page):
        from transformers import RecurrentGemmaConfig
        from transformers.models.recurrent_gemma import modeling_recurrent_gemma

        config = RecurrentGemmaConfig(
            hidden_size=self.width, lru_width=512, num_attention_heads=2
        )
        block = modeling_recurrent_gemma.RecurrentGemmaRecurrentBlock
        self.module, self.page = block(config, 0), page
        self.weights = drawn(self.module)
        self.cell = page.gemma_cell(self.weights)

    def theirs(self, x):
        positions = torch.arange(x.shape[1])[None]
        outputs, _ = self.module(x, positions, None, use_cache=False)
        return outputs, (None, self.module.rg_lru.recurrent_states)

    def inputs(self, x):
        y = self.page.affine(self.weights, "linear_y", x)
        gate = jax.nn.gelu(y, approximate=True)
        return self.page.affine(self.weights, "linear_x", x), gate

    def outputs(self, h, gate):
        return self.page.affine(self.weights, "linear_out", h * gate)


def drawn(module):
    """The weights of a module, drawn anew, as NumPy arrays."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
        torch.nn.init.normal_(parameter, std=0.5 * fan_in**-0.5)
    return {name: each.detach().numpy() for name, each in module.state_dict().items()}


@pytest.mark.parametrize("make", [XLSTM, RecurrentGemma])
def test_published_layer(make, page):
    """Padded with lengths, packed, and as a stream of single steps."""
    pytest.importorskip(make.package)
    layer = make(page)
    x = np.random.default_rng(0).normal(size=(3, TIME, make.width)).astype(np.float32)
    with torch.no_grad():
        want = [
            layer.theirs(torch.from_numpy(x[row : row + 1, :length]))
            for row, length in enumerate(LENGTHS)
        ]
    with usual_promotion():
        inputs, gate = layer.inputs(x)
        h, last = jaxrnn.dynamic_rnn(layer.cell, inputs, LENGTHS, dtype=x.dtype)
        padded = layer.outputs(h, gate)
        packed = jaxrnn.pack_sequences(inputs, LENGTHS)
        h, _, states = jaxrnn.dynamic_rnn(
            layer.cell,
            packed.inputs,
            packed.lengths,
            dtype=x.dtype,
            resets=packed.resets,
            return_states=True,
        )
        lasts = packed.at_ends(states, len(LENGTHS))
        h = packed.unpack(h, len(LENGTHS), TIME)
        of_pack = layer.outputs(h, gate)
        step = jax.jit(lambda x, state: layer.cell(x, state))
        hs, state = [], layer.cell.zero_state(1, x.dtype)
        for t in range(LENGTHS[1]):
            output, state = step(inputs[1:2, t], state)
            hs.append(output)
        gates = None if gate is None else gate[1:2, : LENGTHS[1]]
        stream = layer.outputs(jnp.stack(hs, axis=1), gates)
    for row, (length, (outputs, finals)) in enumerate(zip(LENGTHS, want, strict=True)):
        for got in (padded, of_pack, *([stream] if row == 1 else [])):
            at = 0 if got is stream else row
            near(got[at, :length], outputs[0])
        for got in (last, lasts, *([state] if row == 1 else [])):
            at = 0 if got is state else row
            for leaf, final in zip(got, finals, strict=True):
                if final is not None:
                    near(leaf[at], final[0])


def near(got, want):
    """Equal to 2e-6, or to 2e-6 of the largest number if that is more."""
    assert largest_error([(got, want.numpy())]) <= TOLERANCE
