"""Layers of other packages, with random weights.

`convert.from_transformers` loads those of `transformers` and of RWKV, in float64. The
functions of a page load those of xLSTM-7B (`mLSTMLayer` of `xlstm`) and RecurrentGemma,
whose heads have the published sizes; there are two of them.
"""

import dataclasses
import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_page
from flax import nnx
from helpers import largest_error, usual_promotion
from in_float64 import in_float64

import jaxrnn.convert
import jaxrnn.nnx

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
WIDTH, TIME, LENGTHS, STEPS = 16, 70, [70, 33, 1], 3
TOLERANCE = 1e-10


@dataclasses.dataclass
class Case:
    """A layer of `jaxrnn.nnx`, and the module of `transformers` that it equals.

    Attributes:
        layer: The name of the layer.
        sizes: Its sizes after `in_features`.
        options: Its other arguments.
        package: The package of `transformers.models` with the module.
        names: The names of the config and of the module.
        config: Options of the config.
    """

    layer: str
    sizes: tuple[int, ...]
    options: dict[str, Any]
    package: str
    names: tuple[str, str]
    config: dict[str, Any]

    def make(self):
        """The module with random weights, and its config."""
        path = f"transformers.models.{self.package}"
        read = lambda kind: importlib.import_module(f"{path}.{kind}_{self.package}")
        package, (config, module) = read("modeling"), self.names
        options = {"hidden_size": WIDTH, "num_hidden_layers": 1} | self.config
        config = getattr(read("configuration"), config)(**options)
        # Its own initialization of a module alone fails.
        unset = {"initialize_mixer_weights": False}
        unset = unset if self.package == "falcon_mamba" else {}
        made = getattr(package, module)(config, layer_idx=0, **unset)
        if self.package == "falcon_h1":  # The model sets it.
            made.mup_vector = package.compute_mup_vector(config)
        return made, config


def delta(package, names, options=(), **config):
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    sizes = {"linear_key_head_dim": 8, "linear_value_head_dim": 6}
    options = {"num_key_heads": 2, **dict(options)}
    config = heads | sizes | config
    return Case("GatedDeltaNet", (4, 8, 6), options, package, names, config)


def kimi(package, names, options=(), **config):
    config = {"linear_num_heads": 2, "linear_head_dim": 8} | config
    sizes = (2, 8, 8)
    return Case("KimiDeltaAttention", sizes, dict(options), package, names, config)


def mamba(package, names, options=(), **config):
    """Of two names of the number of states, and of the rank."""
    is_jamba = package == "jamba"
    states, rank = "state_size", "time_step_rank"
    states, rank = ("mamba_d_state", "mamba_dt_rank") if is_jamba else (states, rank)
    options, config = {"rank": 3, **dict(options)}, {states: 5, rank: 3} | config
    return Case("Mamba", (2 * WIDTH, 5), options, package, names, config)


# The names of the numbers of heads, of their sizes, of states and of groups.
MAMBA2_SIZES = "num_heads", "head_dim", "state_size", "n_groups"
BAMBA_SIZES = "mamba_n_heads", "mamba_d_head", "mamba_d_state", "mamba_n_groups"
NEMOTRON_SIZES = "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups"
ZAMBA_SIZES = "n_mamba_heads", "mamba_headdim", "mamba_d_state", "mamba_ngroups"


def mamba2(package, names, sizes, options=(), **config):
    options = {"num_key_heads": 2, **dict(options)}
    config = dict(zip(sizes, (4, 8, 6, 2), strict=True)) | config
    return Case("Mamba2", (4, 6, 8), options, package, names, config)


KIMI = "kimi_linear", ("KimiLinearConfig", "KimiLinearDeltaAttention")
LING = "bailing_hybrid", ("BailingHybridConfig", "BailingHybridDeltaAttention")
MAMBA2 = "mamba2", ("Mamba2Config", "Mamba2Mixer"), MAMBA2_SIZES
BAMBA = "bamba", ("BambaConfig", "BambaMixer"), BAMBA_SIZES
FALCON_H1 = "falcon_h1", ("FalconH1Config", "FalconH1Mixer"), BAMBA_SIZES
ONE_MAMBA = {"layers_block_type": ["mamba"], "time_step_min": 0.5}
CASES = {
    "qwen3_next": delta("qwen3_next", ("Qwen3NextConfig", "Qwen3NextGatedDeltaNet")),
    "qwen3_5": delta(
        "qwen3_5",
        ("Qwen3_5TextConfig", "Qwen3_5GatedDeltaNet"),
        layer_types=["linear_attention"],
    ),
    "olmo_hybrid": delta(
        "olmo_hybrid",
        ("OlmoHybridConfig", "OlmoHybridGatedDeltaNet"),
        {"allow_neg_eigval": True, "norm_epsilon": 1e-5},
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
    ),
    "kimi_linear": kimi(*KIMI),
    "glm5_next": kimi(
        "glm5_next",
        ("Glm5NextTextConfig", "Glm5NextTextLinearAttention"),
        {"gate_lower_bound": -4.0},
        linear_lower_bound=-4.0,
    ),
    "ling": kimi(
        *LING,
        {"gate_lower_bound": -5.0, "use_full_rank": True, "norm_epsilon": 1e-6},
    ),
    "mamba": mamba("mamba", ("MambaConfig", "MambaMixer")),
    "falcon_mamba": mamba(
        "falcon_mamba",
        ("FalconMambaConfig", "FalconMambaMixer"),
        {"norm_epsilon": 1e-3, "use_bias": True, "use_conv_bias": False},
        mixer_rms_eps=1e-3,
        use_bias=True,
        use_conv_bias=False,
    ),
    "jamba": mamba(
        "jamba",
        ("JambaConfig", "JambaMambaMixer"),
        {"norm_epsilon": 1e-6, "use_norm_scale": True, "use_bias": True},
        mamba_proj_bias=True,
    ),
    "mamba2": mamba2(*MAMBA2, chunk_size=16),
    "mamba2_limits": mamba2(
        *MAMBA2,
        {"time_step_limit": (0.3, 1.1), "use_bias": True, "use_conv_bias": False},
        time_step_limit=(0.3, 1.1),
        use_bias=True,
        use_conv_bias=False,
    ),
    "bamba": mamba2(*BAMBA),
    "granitemoehybrid": mamba2(
        "granitemoehybrid",
        ("GraniteMoeHybridConfig", "GraniteMoeHybridMambaLayer"),
        BAMBA_SIZES,
        layer_types=["mamba"],
        rms_norm_eps=1e-5,
    ),
    "falcon_h1": mamba2(
        *FALCON_H1,
        {"norm": None, "use_bias": True},
        mamba_d_ssm=32,
        mamba_proj_bias=True,
        projectors_bias=True,
    ),
    "falcon_h1_before": mamba2(
        *FALCON_H1, {"norm": "before_gate"}, mamba_d_ssm=32, mamba_rms_norm=True
    ),
    "nemotron_h": mamba2(
        "nemotron_h",
        ("NemotronHConfig", "NemotronHMamba2Mixer"),
        NEMOTRON_SIZES,
        {"time_step_limit": (0.5, np.inf)},
        **ONE_MAMBA,
    ),
    "zamba2": mamba2(
        "zamba2",
        ("Zamba2Config", "Zamba2MambaMixer"),
        ZAMBA_SIZES,
        {"time_step_limit": (0.5, np.inf), "use_bias": True},
        **ONE_MAMBA,
        add_bias_linear=True,
    ),
}


def of_transformers(make, x):
    """Weights, config, outputs, and the gradients of the sum of their squares."""
    torch.manual_seed(0)
    with in_float64(torch):
        module, config = make()
        module = module.double()
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
            torch.nn.init.normal_(parameter, std=0.7 * fan_in**-0.5)
        given = torch.tensor(x, requires_grad=True)
        outputs = [
            first_of(module(given[row : row + 1, :length]))[0]
            for row, length in enumerate(LENGTHS)
        ]
        sum(each.square().sum() for each in outputs).backward()
    named = dict(module.named_parameters())
    weights = {name: each.detach().numpy() for name, each in named.items()}
    grads = {name: each.grad.numpy() for name, each in named.items()}
    outputs = [y.detach().numpy() for y in outputs]
    return (weights, config), outputs, grads, given.grad.numpy()


def first_of(outputs):
    return outputs[0] if isinstance(outputs, tuple) else outputs


def make_layer(kind, *sizes, **options):
    options |= {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    return getattr(jaxrnn.nnx, kind)(WIDTH, *sizes, **options)


@pytest.mark.parametrize("name", CASES)
def test_layer(name, record_property):
    """Outputs, all gradients, single steps after a prefill, and the weights again."""
    case = CASES[name]
    x = np.random.default_rng(0).normal(size=(3, TIME, WIDTH))
    (weights, config), outputs, grads, of_x = of_transformers(case.make, x)

    def compute_loss(weights, x):
        layer = make_layer(case.layer, *case.sizes, **case.options)
        layer = jaxrnn.convert.from_transformers(weights, layer, config=config)
        h, _ = layer(x, sequence_length=jnp.array(LENGTHS))
        _, state = layer(x[:1, :-STEPS])
        step = lambda state, x: layer(x[None, None], state)[::-1]
        _, last = jax.lax.scan(step, state, x[0, -STEPS:])
        saved = jaxrnn.convert.to_transformers(layer, config=config)
        return jnp.sum(h**2), (h, last[:, 0, 0], saved)

    gradient = jax.jit(jax.grad(compute_loss, (0, 1), has_aux=True))
    (d_weights, d_x), (h, last, saved) = gradient(weights, x)
    pairs = [(h[i, :n], outputs[i]) for i, n in enumerate(LENGTHS)]
    pairs += [(last, outputs[0][-STEPS:])]
    pairs += [(d_weights[name], grads[name]) for name in grads] + [(d_x, of_x)]
    error = largest_error(pairs)
    record_property("error", error)
    assert error < TOLERANCE
    assert saved.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(saved[name], weight)


# A layer with its default options, a config whose option it has or lacks, and the name
# of that option in the message.
OTHERS = [
    ("Mamba", "FalconMambaConfig", {}, "layer.norm_epsilon"),
    ("Mamba2", "Mamba2Config", {"hidden_act": "relu"}, "config.hidden_act"),
    ("Mamba2", "BambaConfig", {"time_step_limit": (0.0, 0.1)}, "layer.time_step_limit"),
    ("Mamba2", "JambaConfig", {}, "config.model_type"),
]


@pytest.mark.parametrize(("kind", "config", "options", "name"), OTHERS)
def test_a_config_of_other_options_is_refused(kind, config, options, name):
    import transformers

    layer = make_layer(kind, *{"Mamba": (32, 5), "Mamba2": (4, 6, 8)}[kind])
    weights = jaxrnn.convert.to_transformers(layer)
    sizes = {"mamba_d_state": 6} if kind == "Mamba2" else {}
    config = getattr(transformers, config)(**sizes, **options)
    with pytest.raises(ValueError, match=f"^`{name}` must"):
        jaxrnn.convert.from_transformers(weights, layer, config=config)


def test_rwkv7(monkeypatch, record_property):
    """A first and a later layer, step by step, against the authors' function.

    The package `rwkv` runs on its own weights, of which the matrices are transposed.
    """
    monkeypatch.setenv("RWKV_V7_ON", "1")
    model = pytest.importorskip("rwkv.model")
    heads, size, rng = 2, WIDTH // 2, np.random.default_rng(0)
    inputs = rng.normal(size=(TIME, WIDTH))
    first = None
    for index in range(2):
        options = {"layer_index": index, "num_layers": 2, "ranks": (3, 4, 5, 6)}
        layer = make_layer("RWKV7TimeMix", heads, **options)
        types = jaxrnn.convert.to_transformers(layer)
        weights = {k: rng.normal(scale=0.4, size=x.shape) for k, x in types.items()}
        layer = jaxrnn.convert.from_transformers(weights, layer)
        values = None if first is None else first[None]
        got, _ = layer(inputs[None], first_values=values)
        torch_of = lambda x: torch.from_numpy(np.array(x))
        w = {k: torch_of(x.squeeze() if k != "r_k" else x) for k, x in weights.items()}
        w = {f"v{i}": torch.zeros(()) for i in range(3)} | w
        names = [f"x_{n}" for n in "rwkvag"]
        names += [f"{n}{i}" for n in "wav" for i in range(3)]
        arguments = [w[n] for n in [*names, "g1", "g2", "k_k", "k_a"]]
        arguments += [w["r_k"].reshape(-1)]
        arguments += [
            w[f"{n}.weight"].T for n in ("receptance", "key", "value", "output")
        ]
        arguments += [w["ln_x.weight"], w["ln_x.bias"]]
        past = torch.zeros(WIDTH, dtype=torch.float64)
        s = torch.zeros(heads, size, size)  # The function needs float32.
        outputs, values = [], []
        for t, x in enumerate(torch_of(inputs)):
            v = torch.empty(0) if first is None else torch_of(np.asarray(first[t]))
            step = model.RWKV_x070_TMix_one
            y, past, s, v = step(index, heads, size, x, past, v, s, *arguments)
            outputs.append(y.numpy())
            values.append(v.numpy())
        error = largest_error([(got[0], np.stack(outputs))])
        record_property("error", error)
        assert error < 1e-6  # The function rounds the decays and the state to float32.
        first = layer.values(inputs[None])[0] if first is None else first
        assert largest_error([(first, np.stack(values))]) < TOLERANCE


# Functions of a page.

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "recipes" / "linear_attention.md"


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
    """Sequences that are padded, with their lengths."""
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
    for row, (length, (outputs, finals)) in enumerate(zip(LENGTHS, want, strict=True)):
        near(padded[row, :length], outputs[0])
        for leaf, final in zip(last, finals, strict=True):
            if final is not None:
                near(leaf[row], final[0])


def near(got, want):
    """Equal to 2e-6, or to 2e-6 of the largest number if that is more."""
    assert largest_error([(got, want.numpy())]) <= 2e-6
