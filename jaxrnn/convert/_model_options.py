"""Options of published models that change results, but no weight shows.

A layer of `jaxrnn.nnx` lacks most of them, so it equals the layer of a model only if
the options have the values of `_MODELS`. A model without a row may have others.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from .._base.errors import Verbatim, expect

_MISSING = Verbatim("no such option")


@dataclasses.dataclass(frozen=True)
class _Model:
    """What the weights of a model do not show.

    Attributes:
        options: The options of its config, each with the values that have the effect of
            the layer.
        fields: The fields of the layer, each with the option that has its value, or
            with the value if the model has no such option.
    """

    options: Mapping[str, tuple[object, ...]]
    fields: Mapping[str, str | float] = dataclasses.field(default_factory=dict)


_SILU = {"hidden_act": ("silu", "swish")}
# `transformers` writes infinity as a dict into config.json.
_INFINITY = {"__float__": "Infinity"}
_NO_LIMIT = {"time_step_limit": ([0.0, math.inf], [0.0, _INFINITY])}
_NO_LEAST = {"time_step_min": (0.0,)}
_NO_FACTORS = {"ssm_in_multiplier": (1.0,), "ssm_multipliers": ([1.0] * 5,)}
_OF_BAMBA = {"norm_epsilon": "rms_norm_eps", "key_size": "mamba_d_state"}

# For each layer, the models with its weights by their `model_type` in `transformers`.
_MODELS = {
    "GatedDeltaNet": {
        "qwen3_next": _Model(
            _SILU, {"norm_epsilon": "rms_norm_eps", "key_size": "linear_key_head_dim"}
        ),
    },
    "KimiDeltaAttention": {
        "kimi_linear": _Model(_SILU, {"norm_epsilon": "rms_norm_eps"}),
    },
    "Mamba": {
        "mamba": _Model(_SILU),
        "falcon_mamba": _Model(_SILU | {"mixer_rms_eps": (None,)}),
    },
    "Mamba2": {
        "mamba2": _Model(
            _SILU | _NO_LIMIT,
            {"norm_epsilon": "layer_norm_epsilon", "key_size": "state_size"},
        ),
        "bamba": _Model(_SILU | _NO_LIMIT, _OF_BAMBA),
        "granitemoehybrid": _Model(_SILU | _NO_LIMIT, _OF_BAMBA),
        "falcon_h1": _Model(
            {"mamba_norm_before_gate": (False,), **_SILU, **_NO_LIMIT, **_NO_FACTORS},
            _OF_BAMBA,
        ),
        "nemotron_h": _Model(
            {"mamba_hidden_act": _SILU["hidden_act"]} | _NO_LEAST,
            {"norm_epsilon": "layer_norm_epsilon", "key_size": "ssm_state_size"},
        ),
        "zamba2": _Model(
            _NO_LEAST, {"norm_epsilon": 1e-5, "key_size": "mamba_d_state"}
        ),
    },
}


def check_config(layer: object, config: object) -> None:
    """Raises ValueError unless the layer equals that of the model with this config.

    Args:
        layer: A layer of `jaxrnn.nnx`.
        config: A config of `transformers`, or a mapping with its options; None if only
            one model has the layer's weights.
    """
    kind = type(layer).__name__
    models = _MODELS.get(kind, {})
    if config is None:
        must = f"be the config of the model, because {len(models)} models have weights "
        must += f"of these names, and options that `{kind}` lacks"
        fix = "Pass `model.config`, or a dict such as that of the file config.json."
        expect(len(models) < 2, "config", must, config, fix)
        return
    expect(models, "config", f"be omitted for `{kind}`", config)
    name = _option(config, "model_type")
    must = f"be {' or '.join(models)}, which has the weights of `{kind}`"
    expect(name in models, "config.model_type", must, name)
    for option, values in models[name].options.items():
        got = _option(config, option)
        must = f"be {values[0]}, because `{kind}` lacks this option"
        expect(got in values, f"config.{option}", must, got)
    for field, source in models[name].fields.items():
        want = _option(config, source) if isinstance(source, str) else source
        must = f"be {want}, as in the model {name}"
        got = getattr(layer, field)
        expect(got == want, f"layer.{field}", must, got)


def _option(config: Any, name: str) -> Any:
    """The value of an option; an object of `transformers` has it as an attribute."""
    is_mapping = isinstance(config, Mapping)
    value = (
        config.get(name, _MISSING) if is_mapping else getattr(config, name, _MISSING)
    )
    must = f"have the option `{name}`"
    got = Verbatim(f"{type(config).__name__} without it")
    expect(value is not _MISSING, "config", must, got)
    return list(value) if isinstance(value, tuple) else value
