"""Weights of the layers of `transformers` and of RWKV-7, for layers of `jaxrnn.nnx`."""

import functools
from typing import Any, TypeVar

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


def from_transformers(
    state_dict: Weights, layer: LayerT, *, at: str = "", config: object = None
) -> LayerT:
    """Returns a copy of a layer with published weights, in its dtypes and sharding.

    The layers of `jaxrnn.nnx`, and the modules whose weights they have:

    * `GatedDeltaNet`: `Qwen3NextGatedDeltaNet`.
    * `KimiDeltaAttention`: `KimiLinearDeltaAttention`.
    * `Mamba`: `MambaMixer`.
    * `Mamba2`: `Mamba2Mixer`, `BambaMixer`, `GraniteMoeHybridMambaLayer`.
    * `RWKV7TimeMix`: `RWKV_Tmix_x070`, `blocks.0.att.` in the files of RWKV.

    Falcon Mamba, Falcon-H1, Nemotron-H and Zamba2 have weights of the same names, but
    other options. `from_transformers` refuses their configs unless these options have
    no effect.

    Some options of a model change its results, but no weight shows them: an activation,
    an epsilon, a limit. `from_transformers` compares the options in `config` with the
    layer.

    The weights may be traced. Gradients then have the names of `state_dict`. `layer`
    itself does not change, and may come from `nnx.eval_shape`, so that its parameters
    have no values.

    Args:
        state_dict: The `state_dict` of the module or of a whole model, with tensors or
            arrays. For Kimi Linear, pass that of the model that `transformers` loads,
            which renames the weights of the files.
        layer: A layer of `jaxrnn.nnx` with the module's sizes; see the list above.
        at: The name of the module in the model, e.g. "model.layers.0.linear_attn". A
            final dot may follow. "" for the module alone.
        config: The config of the model: an object of `transformers`, or a dict such as
            that of the file config.json. Required for `Mamba` and `Mamba2`, because
            several models have weights of these names. Optional for `GatedDeltaNet` and
            `KimiDeltaAttention`. Omit it for `RWKV7TimeMix`. If the config of a model
            has parts, pass one part, such as `config.text_config`.

    Returns:
        A new module of the class of `layer`.

    Raises:
        TypeError: If `state_dict` is not a mapping, `layer` is no such layer, or a
            weight is not a floating-point array.
        ValueError: If a weight is missing, unknown, or has the wrong shape; if the
            layer has parameters beside those of its class; if `config` is missing, is
            of another model, or has an option that the layer lacks; if the layer has
            another `norm_epsilon` or `key_size` than the model.

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
    params, published = _published(layer)
    # Types without shardings, which are parts of the types on an explicit mesh.
    plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    types = jax.eval_shape(published, plain)
    _check_whole(layer, params, types)
    own = [name for name in state_dict if str(name).startswith(prefix)]
    wanted = [f"{prefix}{name}" for name in types]
    # Files of RWKV-7 hold unused v0, v1 and v2 of the first layer.
    unused = {f"blocks.0.att.v{i}" for i in range(3)}
    own = [name for name in own if name in wanted or name not in unused]
    if not {*own} & {*wanted}:
        fix = "Check `at`, the name of the module in the model."
    elif "x_r" in types:
        fix = "Later layers of RWKV-7 need `layer_index` and `num_layers`."
    else:
        fix = "The module has another architecture, or an option such as `use_bias`."
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


def to_transformers(layer: object, *, at: str = "") -> dict[str, np.ndarray]:
    """Returns a layer's weights as NumPy arrays; the inverse of `from_transformers`.

    Traced parameters stay JAX arrays. `module.load_state_dict({k: torch.tensor(v) for
    k, v in weights.items()})` assigns the returned `weights` to a module, whose config
    must be one that `from_transformers` accepts for the layer. Cast bfloat16 arrays to
    float32 first.

    Args:
        layer: A layer of `jaxrnn.nnx`; see the table at `from_transformers`.
        at: The name of the module in the model, as in `from_transformers`.

    Raises:
        TypeError: If `layer` is no such layer.
        ValueError: If the layer has parameters beside those of its class.
    """
    prefix = as_prefix("at", at, ".")
    params, published = _published(layer)
    arrays = published(params)
    _check_whole(layer, params, arrays)
    numpy = lambda x: x if is_traced(x) else np.array(x)
    return {f"{prefix}{name}": numpy(array) for name, array in arrays.items()}


def _published(layer: object) -> tuple[Params, Any]:
    """The parameters of a layer, and the function from them to published weights."""
    # By name, because importing the classes would import Flax.
    found: Any = _PUBLISHED.get(type(layer).__name__)
    must = f"be a layer of `jaxrnn.nnx`, of {', '.join(_PUBLISHED)}"
    expect(found, "layer", must, type(layer).__name__, error=TypeError)
    nnx: Any = import_optional("flax.nnx")
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    return params, functools.partial(found, layer)


def _check_whole(layer: object, params: Params, published: Params) -> None:
    """Raises ValueError if some parameters have no published name."""
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    must = f"have the parameters of `{type(layer).__name__}` only"
    got = listed(name for name, _ in named_leaves("layer", params))
    expect(count(published) == count(params), "layer", must, got)


def _linear(names: dict[str, Array]) -> Params:
    """The weights of linear layers by their published names."""
    return {f"{name}.weight": kernel.T for name, kernel in names.items()}


def _conv(params: Params) -> Params:
    """The weights of the convolution."""
    conv = params["conv"]
    bias = {"conv1d.bias": conv["bias"]} if "bias" in conv else {}
    return {"conv1d.weight": conv["kernel"].T[:, None]} | bias


def _qwen3_next(layer: Any, params: Params) -> Params:
    """The published projections are grouped by the heads of q and k."""
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
    own = {"norm.weight": params["norm"]["scale"]}
    own |= {name: params[name] for name in ("A_log", "dt_bias")}
    return own | _linear(names) | _conv(params)


def _kimi_linear(layer: Any, params: Params) -> Params:
    keys = layer.memory.input_sizes.q.num_elements()
    qkv = jnp.split(params["qkv_proj"]["kernel"], [keys, 2 * keys], axis=1)
    names = dict(zip(["q_proj", "k_proj", "v_proj"], qkv, strict=True))
    for ours, theirs in {"a": "forget_gate.f", "gate": "g"}.items():
        down, up = (params[f"{ours}_proj"][name] for name in ("down", "up"))
        names |= {f"{theirs}_a_proj": down["kernel"], f"{theirs}_b_proj": up["kernel"]}
    names |= {"b_proj": params["b_proj"]["kernel"]}
    names |= {"o_proj": params["out_proj"]["kernel"]}
    return {
        "forget_gate.A_log": params["A_log"].reshape(1, 1, -1, 1),
        "forget_gate.dt_bias": params["dt_bias"],
        "o_norm.weight": params["norm"]["scale"],
        **_linear(names),
        **_conv(params),
    }


def _mamba(layer: object, params: Params) -> Params:
    return {"dt_proj.bias": params["dt_bias"]} | _mambas(params)


def _mamba2(layer: object, params: Params) -> Params:
    own = {"norm.weight": params["norm_scale"], "dt_bias": params["dt_bias"]}
    return own | _mambas(params)


def _mambas(params: Params) -> Params:
    """The weights that both layers have."""
    names = {n: params[n]["kernel"] for n in params if n.endswith("_proj")}
    own = {name: params[name] for name in ("A_log", "D")}
    return own | _linear(names) | _conv(params)


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


_PUBLISHED = {
    "GatedDeltaNet": _qwen3_next,
    "KimiDeltaAttention": _kimi_linear,
    "Mamba": _mamba,
    "Mamba2": _mamba2,
    "RWKV7TimeMix": _rwkv7,
}
