"""Layers of the page "Layers of linear attention" against those of `transformers`.

In float64, with random weights, which the functions of the page load.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_page
from flax import nnx
from helpers import largest_error, usual_promotion
from in_float64 import in_float64

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recipes" / "linear_attention.md"
WIDTH, TIME, LENGTHS = 16, 70, [70, 33, 1]
TOLERANCE = 1e-10


@dataclasses.dataclass
class Case:
    """The module of `transformers`, and the page's layer and loader."""

    module: Callable[[], Any]
    layer: str
    sizes: tuple[int, ...]
    load: str


def qwen3_next():
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next import modeling_qwen3_next as package

    config = Qwen3NextConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=6,
    )
    return package.Qwen3NextGatedDeltaNet(config, 0)


def kimi_linear():
    from transformers import KimiLinearConfig
    from transformers.models.kimi_linear import modeling_kimi_linear as package

    config = KimiLinearConfig(
        hidden_size=WIDTH, num_hidden_layers=1, linear_num_heads=2, linear_head_dim=8
    )
    return package.KimiLinearDeltaAttention(config, 0)


def mamba2():
    from transformers import Mamba2Config
    from transformers.models.mamba2 import modeling_mamba2 as package

    config = Mamba2Config(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_heads=4,
        head_dim=8,
        state_size=6,
        n_groups=1,
        chunk_size=16,
    )
    return package.Mamba2Mixer(config, 0)


CASES = {
    "qwen3_next": Case(qwen3_next, "GatedDeltaNet", (4, 8, 6, 2), "load_qwen3_next"),
    "kimi_linear": Case(kimi_linear, "KDA", (2, 8, 8), "load_kimi_linear"),
    "mamba2": Case(mamba2, "Mamba2", (4, 6, 8), "load_mamba2"),
}


@pytest.fixture(scope="module")
def page():
    """The classes and functions of the page."""
    with usual_promotion():
        return run_page.definitions(PAGE)


def of_transformers(make, x):
    """Weights, outputs, and the gradients of the sum of their squares."""
    torch.manual_seed(0)
    with in_float64(torch):
        module = make().double()
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
            torch.nn.init.normal_(parameter, std=0.7 * fan_in**-0.5)
        given = torch.tensor(x, requires_grad=True)
        outputs = [
            module(given[row : row + 1, :length])[0]
            for row, length in enumerate(LENGTHS)
        ]
        sum(each.square().sum() for each in outputs).backward()
    named = dict(module.named_parameters())
    weights = {name: each.detach().numpy() for name, each in named.items()}
    grads = {name: each.grad.numpy() for name, each in named.items()}
    return weights, [y.detach().numpy() for y in outputs], grads, given.grad.numpy()


@pytest.mark.parametrize("name", CASES)
def test_layer(name, page, record_property):
    """Outputs, and the gradients of all weights and of the inputs."""
    case = CASES[name]
    x = np.random.default_rng(0).normal(size=(3, TIME, WIDTH))
    is_step = np.arange(TIME) < np.array(LENGTHS)[:, None]
    weights, outputs, grads, of_x = of_transformers(case.module, x)

    def compute_loss(weights, x):
        layer = getattr(page, case.layer)(WIDTH, *case.sizes, rngs=nnx.Rngs(0))
        getattr(page, case.load)(layer, weights)
        h, _ = layer(x, sequence_length=jnp.array(LENGTHS))
        return jnp.sum(h**2, where=is_step[..., None]), h

    with usual_promotion():
        gradient = jax.jit(jax.grad(compute_loss, (0, 1), has_aux=True))
        (d_weights, d_x), h = gradient(weights, x)
    pairs = [(h[i, :n], outputs[i]) for i, n in enumerate(LENGTHS)]
    pairs += [(d_weights[name], grads[name]) for name in grads] + [(d_x, of_x)]
    error = largest_error(pairs)
    record_property("error", error)
    assert error < TOLERANCE
