"""Converts weights between layers of `jaxrnn.nnx` and of `transformers` or RWKV-7."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .._base.errors import expect
from .._base.math import in_native_order, is_traced
from .._base.modules import import_optional
from .._base.trees import named_leaves, with_structure
from .._base.typing import Array, Params
from .._flax.parameters import in_place_of
from ._model_options import check_config
from ._weights import Weights, as_mapping, as_prefix, as_weight, check_names, listed

LayerT = TypeVar("LayerT")

Published: TypeAlias = Callable[..., Params]
"""Maps a layer's parameters to weights with a model's published names and shapes."""
Forms: TypeAlias = dict[str | None, Published]
"""Such functions by the names of their models."""


def from_transformers(
    state_dict: Weights, layer: LayerT, *, at: str = "", config: object = None
) -> LayerT:
    """Returns a copy of a layer with weights of a published model.

    The copy keeps the dtypes and the sharding of the layer. These layers of
    `jaxrnn.nnx` load the weights of the following modules:

    * `GatedDeltaNet`: `Qwen3NextGatedDeltaNet`, `Qwen3_5GatedDeltaNet`,
      `OlmoHybridGatedDeltaNet`.
    * `KimiDeltaAttention`: `KimiLinearDeltaAttention`, `Glm5NextTextLinearAttention`,
      `BailingHybridDeltaAttention`.
    * `Mamba`: `MambaMixer`, `FalconMambaMixer`, `JambaMambaMixer`.
    * `Mamba2`: `Mamba2Mixer`, `BambaMixer`, `GraniteMoeHybridMambaLayer`,
      `FalconH1Mixer` without multipliers, `NemotronHMamba2Mixer`, `Zamba2MambaMixer`.
    * `RWKV7TimeMix`: `RWKV_Tmix_x070`, `blocks.0.att.` in the files of RWKV.

    The weights do not show some options of a model, e.g. an activation, an epsilon or a
    limit. Therefore, `from_transformers` compares the options in `config` with the
    layer.

    The weights may be traced, and gradients have the names of `state_dict`. `layer`
    itself does not change. To save memory, create `layer` with `nnx.eval_shape`, so
    that its parameters have shapes but no values.

    Args:
        state_dict: The `state_dict` of the module or of a whole model, with tensors or
            arrays. For Kimi Linear, pass the `state_dict` of a model that
            `transformers` has loaded, because `transformers` renames the weights of the
            files.
        layer: A layer from the list above, with the sizes of the module.
        at: The name of the module in the model, e.g. "model.layers.0.linear_attn". A
            final dot is optional. Use "" for the `state_dict` of the module alone.
        config: The config of the model: an object of `transformers`, or a dict with the
            content of config.json. Required for `Mamba` and `Mamba2`, because the
            weights of several models have the same names. Optional for `GatedDeltaNet`
            and `KimiDeltaAttention`. Omit `config` for `RWKV7TimeMix`. If a config
            contains several configs, pass the config of the language model, such as
            `config.text_config`.

    Returns:
        A new module of the class of `layer`.

    Raises:
        TypeError: If `state_dict` is not a mapping, `layer` is not a layer of the list
            above, or a weight is not a floating-point array.
        ValueError: If a weight is missing, unknown, or has the wrong shape. If the
            layer has parameters that its class does not define. If `config` is missing,
            is for a different model, or has an option that the layer does not support.
            If a field such as `norm_epsilon` or `key_size` differs from the model.

    Example:
        >>> import jaxrnn.convert, jaxrnn.nnx
        >>> from flax import nnx
        >>> layer = jaxrnn.nnx.Mamba(8, rngs=nnx.Rngs(0))
        >>> weights = jaxrnn.convert.to_transformers(layer)
        >>> weights["x_proj.weight"].shape
        (33, 16)
        >>> config = {"model_type": "mamba", "hidden_act": "silu"}
        >>> layer = jaxrnn.convert.from_transformers(weights, layer, config=config)
    """
    as_mapping("state_dict", state_dict, "Pass `module.state_dict()`.")
    prefix = as_prefix("at", at, ".")
    params, forms = _published(layer)
    # Drop the shardings, which are part of the types of arrays on an explicit mesh.
    plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    published = _form_of(state_dict, prefix, forms, plain)
    types = jax.eval_shape(published, plain)
    _check_whole(layer, params, types)
    own = [name for name in state_dict if str(name).startswith(prefix)]
    wanted = [f"{prefix}{name}" for name in types]
    # Files of RWKV-7 hold v0, v1 and v2 of the first layer, which the model does not
    # use.
    unused = {f"blocks.0.att.v{i}" for i in range(3)}
    own = [name for name in own if name in wanted or name not in unused]
    if not {*own} & {*wanted}:
        fix = "Check `at`, the name of the module in the model."
    elif "x_r" in types:
        fix = "Later layers of RWKV-7 need `layer_index` and `num_layers`."
    else:
        fix = "Create `layer` with the options of the module, such as `use_bias`."
    check_names("state_dict", own, wanted, fix=fix)
    check_config(layer, config)

    def weight(name: str, type_: jax.ShapeDtypeStruct) -> Array:
        array = as_weight(name, state_dict[name], type_.shape)
        return jnp.asarray(in_native_order(array)).astype(type_.dtype)

    given = {name: weight(f"{prefix}{name}", types[name]) for name in types}
    # `published` only moves numbers, so its transpose is its inverse.
    (found,) = jax.linear_transpose(published, plain)(given)
    pairs = zip(named_leaves("layer", params), jax.tree.leaves(found), strict=True)
    arrays = [in_place_of(name, old, new) for (name, old), new in pairs]
    nnx: Any = import_optional("flax.nnx")
    made = nnx.clone(layer)
    nnx.update(made, with_structure(params, arrays))
    return made


def to_transformers(
    layer: object, *, at: str = "", config: object = None
) -> dict[str, np.ndarray]:
    """Returns a layer's weights as NumPy arrays; the inverse of `from_transformers`.

    Traced parameters stay JAX arrays. `module.load_state_dict({k: torch.tensor(v) for
    k, v in weights.items()})` assigns the returned `weights` to a module. Create this
    module with a config that `from_transformers` accepts for the layer. Cast bfloat16
    arrays to float32 first.

    Args:
        layer: A layer of `jaxrnn.nnx`; see the list at `from_transformers`.
        at: The name of the module in the model, as in `from_transformers`.
        config: The config of the model, which sets the names of the weights. By
            default, the weights get the names of the layer's first module in the list
            at `from_transformers`.

    Raises:
        TypeError: If `layer` is not a layer of that list.
        ValueError: If the layer has parameters that its class does not define, or does
            not match `config`.
    """
    prefix = as_prefix("at", at, ".")
    params, forms = _published(layer)
    model = None if config is None else check_config(layer, config)
    arrays = forms.get(model, next(iter(forms.values())))(params)
    _check_whole(layer, params, arrays)
    numpy = lambda x: x if is_traced(x) else np.array(x)
    return {f"{prefix}{name}": numpy(array) for name, array in arrays.items()}


def _published(layer: object) -> tuple[Params, Forms]:
    """Returns a layer's parameters, and functions that convert them for each model.

    Each function has the name of a model. Models without a function use the first one.
    """
    # Compare names, because importing the classes would import Flax.
    found = _PUBLISHED.get(type(layer).__name__, {})
    must = f"be one of {', '.join(_PUBLISHED)} of `jaxrnn.nnx`"
    expect(found, "layer", must, layer, error=TypeError)
    nnx: Any = import_optional("flax.nnx")
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    return params, {
        name: functools.partial(form, layer) for name, form in found.items()
    }


def _form_of(
    state_dict: Weights, prefix: str, forms: Forms, params: Params
) -> Published:
    """The function whose results match `state_dict`, or the first if none matches."""

    def fits(form: Published) -> bool:
        types = jax.eval_shape(form, params)
        given = {name: state_dict.get(f"{prefix}{name}") for name in types}
        shape = lambda x: tuple(getattr(x, "shape", ()))
        return all(shape(given[name]) == x.shape for name, x in types.items())

    return next(filter(fits, forms.values()), next(iter(forms.values())))


def _check_whole(layer: object, params: Params, published: Params) -> None:
    """Raises ValueError if some parameters have no published name."""
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    must = f"have only the parameters of the class `{type(layer).__name__}`"
    got = listed(name for name, _ in named_leaves("layer", params))
    expect(count(published) == count(params), "layer", must, got)


def _linear(names: dict[str, Array]) -> Params:
    """Converts kernels `[depth, size]` to linear weights `[size, depth]`."""
    return {f"{name}.weight": kernel.T for name, kernel in names.items()}


def _conv(params: Params) -> Params:
    """Converts the kernel `[width, channels]` of the convolution, and any bias."""
    conv = params["conv"]
    bias = {"conv1d.bias": conv["bias"]} if "bias" in conv else {}
    return {"conv1d.weight": conv["kernel"].T[:, None]} | bias


def _qwen3_next(layer: Any, params: Params) -> Params:
    """Groups the columns of the projections by the heads of q and k."""
    keys = layer.memory.input_sizes.q.num_elements()
    heads, depth = layer.num_key_heads or layer.num_heads, layer.in_features
    kernel = {name: x["kernel"] for name, x in params.items() if "_proj" in name}
    q, k, v = jnp.split(kernel["qkv_proj"], [keys, 2 * keys], axis=1)

    def grouped(*kernels: Array) -> Array:
        parts = [x.reshape(depth, heads, -1) for x in kernels]
        return jnp.concatenate(parts, axis=2).reshape(depth, -1)

    qkvz = grouped(q, k, v, kernel["gate_proj"])
    ba = grouped(kernel["b_proj"], kernel["a_proj"])
    names = {"in_proj_qkvz": qkvz, "in_proj_ba": ba, "out_proj": kernel["out_proj"]}
    return _gated_deltanet(params, names)


def _qwen3_5(layer: Any, params: Params) -> Params:
    theirs = {"in_proj_qkv": "qkv", "in_proj_z": "gate", "in_proj_b": "b"}
    theirs |= {"in_proj_a": "a", "out_proj": "out"}
    names = {name: params[f"{n}_proj"]["kernel"] for name, n in theirs.items()}
    return _gated_deltanet(params, names)


def _olmo_hybrid(layer: Any, params: Params) -> Params:
    theirs = {"a_proj": "a", "b_proj": "b", "g_proj": "gate", "o_proj": "out"}
    names = {name: params[f"{n}_proj"]["kernel"] for name, n in theirs.items()}
    names |= _query_key_value(layer, params)
    return _gated_deltanet(params, names, norm="o_norm")


def _gated_deltanet(
    params: Params, names: dict[str, Array], norm: str = "norm"
) -> Params:
    """Adds the norm, the decays and the convolution to the projections in `names`."""
    own = {f"{norm}.weight": params["norm"]["scale"]}
    return own | _decays(params) | _linear(names) | _conv(params)


def _decays(params: Params) -> Params:
    return {name: params[name] for name in ("A_log", "dt_bias")}


def _query_key_value(layer: Any, params: Params) -> dict[str, Array]:
    """The kernels of q, k and v by their published names."""
    keys = layer.memory.input_sizes.q.num_elements()
    qkv = jnp.split(params["qkv_proj"]["kernel"], [keys, 2 * keys], axis=1)
    return dict(zip(["q_proj", "k_proj", "v_proj"], qkv, strict=True))


def _kimi_linear(layer: Any, params: Params) -> Params:
    weights = _glm5_next(layer, params)
    name = "forget_gate.A_log"
    return weights | {name: weights[name].reshape(1, 1, -1, 1)}


def _glm5_next(layer: Any, params: Params) -> Params:
    """The weights of GLM-5, and of Ling, which has one projection instead of two."""
    names = _query_key_value(layer, params)
    names |= {"b_proj": params["b_proj"]["kernel"]}
    names |= {"o_proj": params["out_proj"]["kernel"]}
    for ours, theirs in {"a": "forget_gate.f", "gate": "g"}.items():
        module = params[f"{ours}_proj"]
        if "kernel" in module:
            names[f"{theirs}_proj"] = module["kernel"]
        else:
            names[f"{theirs}_a_proj"] = module["down"]["kernel"]
            names[f"{theirs}_b_proj"] = module["up"]["kernel"]
    return {
        **{f"forget_gate.{name}": array for name, array in _decays(params).items()},
        "o_norm.weight": params["norm"]["scale"],
        **_linear(names),
        **_conv(params),
    }


def _mamba(layer: object, params: Params) -> Params:
    norms = {n: params[f"{n}_norm"] for n in ("dt", "b", "c") if f"{n}_norm" in params}
    scales = {f"{n}_layernorm.weight": norm["scale"] for n, norm in norms.items()}
    return {"dt_proj.bias": params["dt_bias"]} | scales | _mambas(params)


def _mamba2(layer: object, params: Params) -> Params:
    norm = {"norm.weight": params["norm_scale"]} if "norm_scale" in params else {}
    return norm | {"dt_bias": params["dt_bias"]} | _mambas(params)


def _mambas(params: Params) -> Params:
    """The weights that Mamba and Mamba-2 share."""
    projections = {n: p for n, p in params.items() if n.endswith("_proj")}
    names = {n: p["kernel"] for n, p in projections.items()}
    biases = {f"{n}.bias": p["bias"] for n, p in projections.items() if "bias" in p}
    own = {name: params[name] for name in ("A_log", "D")}
    return own | biases | _linear(names) | _conv(params)


def _rwkv7(layer: object, params: Params) -> Params:
    row = lambda x: x.reshape(1, 1, -1)
    theirs = {"r": "receptance", "k": "key", "v": "value", "out": "output"}
    names = {theirs[n]: params[f"{n}_proj"]["kernel"] for n in theirs}
    weights = {f"x_{n}": row(x) for n, x in zip("rwkvag", params["mix"], strict=True)}
    weights |= {n: row(params[n]) for n in ("k_k", "k_a")} | {"r_k": params["r_k"]}
    for name in filter(params.__contains__, "wavg"):
        module = params[name]
        bias = {f"{name}0": row(module["bias"])} if "bias" in module else {}
        weights |= bias | {f"{name}1": module["down"]["kernel"]}
        weights |= {f"{name}2": module["up"]["kernel"]}
    norms = {"ln_x.weight": params["norm_scale"], "ln_x.bias": params["norm_bias"]}
    return weights | norms | _linear(names)


# For each layer, one function per naming scheme. Models that are not listed use the
# first scheme of their layer.
_PUBLISHED: dict[str, Forms] = {
    "GatedDeltaNet": {
        "qwen3_next": _qwen3_next,
        "qwen3_5_text": _qwen3_5,
        "qwen3_5_moe_text": _qwen3_5,
        "olmo_hybrid": _olmo_hybrid,
    },
    "KimiDeltaAttention": {
        "kimi_linear": _kimi_linear,
        "glm5_next_text": _glm5_next,
        "bailing_hybrid": _glm5_next,
    },
    "Mamba": {"mamba": _mamba},
    "Mamba2": {"mamba2": _mamba2},
    "RWKV7TimeMix": {"rwkv7": _rwkv7},
}
