"""Checks options of published models that the weights do not show.

Such options, e.g. an activation or an epsilon, change results. A layer of `jaxrnn.nnx`
computes the same as the layer of a model only if its fields agree with the options, and
if the options for which the layer has no field have the values in `_MODELS`. Models
that are not in `_MODELS` are refused, because their options are unknown.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from .._base.errors import Verbatim, expect

_MISSING = Verbatim("no such option")


@dataclasses.dataclass(frozen=True)
class _Model:
    """The options of one model that its weights do not show.

    Attributes:
        options: Options of the config for which the layer has no field, each with the
            values for which the layer computes the same.
        fields: For each field of the layer, the option with the same value, or a
            function that computes the value from the config.
    """

    options: Mapping[str, tuple[object, ...]]
    fields: Mapping[str, str | Callable[[Any], object]]


def _limits(low: float, high: Any) -> tuple[float, float] | None:
    """Converts the limits of step sizes to `Mamba2.time_step_limit`."""
    # In config.json, `transformers` writes infinity as a dict.
    high = math.inf if isinstance(high, Mapping) else high
    return None if (low, high) == (0, math.inf) else (low, high)


def _time_step_limit(config: Any) -> tuple[float, float] | None:
    return _limits(*_option(config, "time_step_limit"))


def _time_step_min(config: Any) -> tuple[float, float] | None:
    return _limits(_option(config, "time_step_min"), math.inf)


def _norm_of_falcon_h1(config: Any) -> str | None:
    if not _option(config, "mamba_rms_norm"):
        return None
    is_first = _option(config, "mamba_norm_before_gate")
    return "before_gate" if is_first else "after_gate"


def _lower_bound_of_ling(config: Any) -> float | None:
    is_bounded = _option(config, "kda_safe_gate")
    return _option(config, "kda_lower_bound") if is_bounded else None


_SILU = {"hidden_act": ("silu", "swish")}
_NO_FACTORS = {"ssm_in_multiplier": (1.0,), "ssm_multipliers": ([1.0] * 5,)}
_EPSILON = {"norm_epsilon": "rms_norm_eps"}
_OF_QWEN = _EPSILON | {"key_size": "linear_key_head_dim"}
_OF_BAMBA = _EPSILON | {"key_size": "mamba_d_state"}
_OF_BAMBA |= {"time_step_limit": _time_step_limit}

# For each layer, the models with weights of the same names, by their `model_type`.
_MODELS = {
    "GatedDeltaNet": {
        "qwen3_next": _Model(_SILU, _OF_QWEN),
        "qwen3_5_text": _Model(_SILU, _OF_QWEN),
        "qwen3_5_moe_text": _Model(_SILU, _OF_QWEN),
        "olmo_hybrid": _Model(
            _SILU,
            {
                "norm_epsilon": lambda config: 1e-5,
                "key_size": "linear_key_head_dim",
                "allow_neg_eigval": "linear_allow_neg_eigval",
            },
        ),
    },
    "KimiDeltaAttention": {
        "kimi_linear": _Model(
            _SILU, _EPSILON | {"gate_lower_bound": lambda config: None}
        ),
        "glm5_next_text": _Model(
            _SILU,
            _EPSILON | {"gate_lower_bound": "linear_lower_bound"},
        ),
        "bailing_hybrid": _Model(
            _SILU,
            _EPSILON | {"gate_lower_bound": _lower_bound_of_ling},
        ),
    },
    "Mamba": {
        "mamba": _Model(_SILU, {"norm_epsilon": lambda config: None}),
        "falcon_mamba": _Model(_SILU, {"norm_epsilon": "mixer_rms_eps"}),
        "jamba": _Model(_SILU, _EPSILON),
    },
    "Mamba2": {
        "mamba2": _Model(
            _SILU,
            {
                "norm_epsilon": "layer_norm_epsilon",
                "key_size": "state_size",
                "time_step_limit": _time_step_limit,
            },
        ),
        "bamba": _Model(_SILU, _OF_BAMBA),
        "granitemoehybrid": _Model(_SILU, _OF_BAMBA),
        "falcon_h1": _Model(
            _SILU | _NO_FACTORS, _OF_BAMBA | {"norm": _norm_of_falcon_h1}
        ),
        "nemotron_h": _Model(
            {"mamba_hidden_act": _SILU["hidden_act"]},
            {
                "norm_epsilon": "layer_norm_epsilon",
                "key_size": "ssm_state_size",
                "time_step_limit": _time_step_min,
            },
        ),
        "zamba2": _Model(
            {},
            {
                "norm_epsilon": lambda config: 1e-5,
                "key_size": "mamba_d_state",
                "time_step_limit": _time_step_min,
            },
        ),
    },
}


# For these layers, the names of the weights do not identify the model.
_CONFIG_REQUIRED = ("Mamba", "Mamba2")


def check_config(layer: object, config: object) -> str | None:
    """Raises ValueError unless a layer computes the same as the model's layer.

    Args:
        layer: A layer of `jaxrnn.nnx`.
        config: A config of `transformers`, or a mapping with its options. None skips
            the check if the weights identify the model.

    Returns:
        The `model_type` of the config, or None without a config.

    Raises:
        ValueError: If an option does not match the layer, the model is unknown, or
            `config` is missing for `Mamba` or `Mamba2`.
    """
    kind = type(layer).__name__
    models = _MODELS.get(kind, {})
    if config is None:
        must = f"be the config of the model, because {len(models)} models have weights "
        must += f"with the names of `{kind}`, but differ in their options"
        fix = "Pass `model.config`, or a dict with the content of config.json."
        expect(kind not in _CONFIG_REQUIRED, "config", must, config, fix)
        return None
    expect(models, "config", f"be omitted for `{kind}`", config)
    name = _option(config, "model_type")
    must = f"be {' or '.join(map(repr, models))}, whose weights fit `{kind}`"
    expect(name in models, "config.model_type", must, name)
    for option, values in models[name].options.items():
        got = _option(config, option)
        must = f"be {values[0]}, the only value that `{kind}` supports"
        expect(got in values, f"config.{option}", must, got)
    for field, source in models[name].fields.items():
        is_option = isinstance(source, str)
        want = _option(config, source) if is_option else source(config)
        must = f"be {want}, as in the model {name}"
        got = getattr(layer, field)
        expect(got == want, f"layer.{field}", must, got)
    return name


def _option(config: Any, name: str) -> Any:
    """Reads an option: a key of a mapping, or an attribute of another config."""
    is_mapping = isinstance(config, Mapping)
    value = (
        config.get(name, _MISSING) if is_mapping else getattr(config, name, _MISSING)
    )
    must = f"have the option `{name}`"
    got = Verbatim(f"{type(config).__name__} without it")
    expect(value is not _MISSING, "config", must, got)
    return list(value) if isinstance(value, tuple) else value
