"""The goldens' calls made with jaxrnn, and how far its results are from theirs.

Strict promotion and x64 must be on, as in the test suite.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import contrib

from . import hand_cells, hand_decoders, hand_loops, store, trees
from .hand_decoders import END, UNITS

# Relative and absolute, per dtype of the case. Each operation in half precision rounds,
# and the two libraries neither sum in one order nor fuse the same operations.
TOLERANCES = {
    "float64": (1e-12, 1e-13),
    "float32": (1e-5, 1e-6),
    "float16": (1e-2, 5e-3),
    "bfloat16": (5e-2, 5e-2),
}
# Layer normalization divides by the deviation of a few numbers. TensorFlow's float32
# results differ from its float64 results by 2e-6. Attention and decoders sum more.
SLACK = {"coupled_lstm": 3, "layer_norm_lstm": 3, "attention": 2}
SPARE = 3  # Steps that buffers hold under jit, beyond those that a loop takes.


class ProtocolCell:
    """A cell that is none of jaxrnn's classes, but keeps their protocol.

    It has no parameters, and `step(params, inputs, state)`.
    """

    def __init__(self, step, state_size, output_size):
        self.step, self.state_size, self.output_size = step, state_size, output_size

    __call__ = lambda self, inputs, state: self.step({}, inputs, state)
    bind = lambda self, params, key=None: self
    init = lambda self, key, inputs, dtype=None: {}

    def zero_state(self, batch_size, dtype):
        """Zeros for the state; those of the goldens are one array."""
        return jnp.zeros((batch_size, *tuple(self.state_size)), dtype)


def _hand_cell(spec, step, *sizes):
    if spec["protocol"]:
        return ProtocolCell(step, *sizes)
    call = lambda params, inputs, state, key=None: step(params, inputs, state)
    return jaxrnn.FunctionCell(call, *sizes, **spec.get("ours", {}))


JAX = hand_cells.Library(
    *(jnp, jax.nn, jax.lax, jaxrnn, contrib),
    hand_cell=_hand_cell,
    extras=lambda spec: spec.get("ours", {}),
    constant=lambda array: array,
    random={"key": jax.random.key(3)},
)


def build(spec):
    """The cell of a specification."""
    return hand_cells.build(JAX, spec)


def cells(specs, params):
    """The nested cells of a case, bound; what is no cell as it is."""
    if specs is None:
        return None
    if "not_a_cell" in specs:
        return specs["not_a_cell"]
    if specs.keys() & {"class", "cells", "custom"}:
        return build(specs).bind(params)
    return {key: cells(spec, params.get(key, {})) for key, spec in specs.items()}


# What a case is given.


def golden(case, name):
    """The case's tree of this name, such as `"params"` or `"state"`."""
    structure, stored = store.structures(case)[name], store.arrays(case)
    return trees.restore(structure, lambda path: stored[f"/{name}{path}"], _named(case))


def _named(case):
    """The named tuples in the case's trees and in its cell's state, by name."""
    found = {"LSTMStateTuple": jaxrnn.LSTMStateTuple}
    is_of_contrib = case["folder"] == "contrib"
    nests = [getattr(build(case["cell"]), "state_size", None)] if is_of_contrib else []
    for nest in nests:
        if hasattr(nest, "_fields"):
            found[type(nest).__name__] = type(nest)
        nests += [part for _, part in trees.children(nest) or []]
    return found


def arguments(case):
    """What gradients are taken of, by name: parameters, inputs and given states.

    `jnp.asarray` would compile a copy for each shape.
    """
    names = [n for n in store.structures(case) if n not in store.RESULTS]
    given = {name: jax.tree.map(jax.device_put, golden(case, name)) for name in names}
    if isinstance(case.get("lengths"), dict):
        values = np.asarray(case["lengths"]["values"], case["lengths"]["dtype"])
        # TensorFlow casts booleans. Here they raise an error: they may be a mask.
        values = values.astype(np.int32) if values.dtype == bool else values
        given["sequence_length"] = jax.device_put(values)
    return given


def steps(case):
    """How many steps TensorFlow's loop took; None for what is no loop."""
    found = store.below(case, "results")
    if case["function"] == "raw_rnn":
        sizes = [int(found[path]) for path in found if path.endswith("/size")]
        is_emitted = any(path.startswith("/emit") for path in found)
        return sizes[0] if is_emitted and sizes else case["steps"]
    if case["function"] == "decode":
        axis = 0 if case["options"].get("output_time_major") else 1
        return next(found[p] for p in found if p.startswith("/outputs")).shape[axis]
    return None


# How the call of each function is made, from what is given and the number of steps.


def _run_cell(case, given, limit):
    ways = {"params": "cell", "params_fw": "cell", "params_bw": "cell_bw"}
    bound = [build(case[ways[k]]).bind(given[k]) for k in ways if k in given]
    given = {key: part for key, part in given.items() if key not in ways}
    if case["pass_dtype"] and case["function"] != "cell":
        given["dtype"] = jnp.dtype(case["dtype"])
    if case["function"] in ("cell", "fused"):
        found = bound[0](given.pop("inputs"), given.pop("initial_state", None), **given)
    else:
        driver = getattr(jaxrnn, case["function"])
        found = driver(*bound, **given, time_major=case["time_major"])
    return dict(zip(("outputs", "state"), found, strict=True))


def _run_loop(case, given, limit):
    bound = cells(case["cells"], given.get("params", {}))
    raw_rnn = functools.partial(jaxrnn.raw_rnn, max_time=limit)
    xp = hand_cells.Library(JAX, raw_rnn=raw_rnn)
    return hand_loops.run(xp, case, bound, given["given"], given.get("start"))


def _decode(case, named, limit):
    given, options = named["given"], dict(case["options"])
    cell, start, facts = build(case["cells"]), named["start"], case["attention"]
    if facts is not None:
        mechanism = facts["mechanism"], facts["options"]
        memory = given["memory"], given.get("memory_lengths")
        wrapper = {"attention_layer_size": facts["layer"]}
        cell, start = _attending(cell, [mechanism], [memory], wrapper, start)
    cell, layer = cell.bind(named["params"]), _layer(case, given)
    if case["helper"]:
        helper = hand_decoders.helper(JAX, case, given)
        decoder = contrib.BasicDecoder(cell, helper, start, layer)
    else:
        search, embedding = hand_decoders.options(JAX, case, given)
        tiled = contrib.tile_batch(start, search["beam_width"])
        model = cell, embedding, given["start"], END, tiled
        decoder = contrib.BeamSearchDecoder(*model, output_layer=layer, **search)
    if limit is not None:
        options.setdefault("maximum_iterations", limit)
    outputs, state, lengths = contrib.dynamic_decode(decoder, **options)
    if case["differs"]:
        outputs = outputs._replace(predicted_ids=_in_contribs_order(outputs, state))
    if limit is not None:
        first = (slice(None),) * (not options.get("output_time_major"))
        outputs = jax.tree.map(lambda x: x[(*first, slice(steps(case)))], outputs)
    return hand_decoders.plain({"outputs": outputs, "state": state, "lengths": lengths})


def _in_contribs_order(outputs, state):
    """The sequences as contrib traces them: from the end of the longest one."""
    taken = outputs.beam_search_decoder_output
    major = [jnp.swapaxes(x, 0, 1) for x in (taken.predicted_ids, taken.parent_ids)]
    longest = jnp.max(state.lengths, axis=1)
    return jnp.swapaxes(contrib.gather_tree(*major, longest, END), 0, 1)


def _layer(case, given):
    if "kernel" not in given:
        return None
    scale = 1e4 if case["functions"].get("layer") == "certain" else 1.0

    def layer(outputs):
        bias = given["bias"].reshape((1,) * (outputs.ndim - 1) + (-1,))
        return (outputs @ given["kernel"] + bias) * scale

    return layer


def _loss(case, named, limit):
    options = case["options"] | hand_decoders.functions(JAX, case, named["given"])
    return {"loss": contrib.sequence_loss(**named["given"], **options)}


def _gather(case, named, limit):
    return {"beams": contrib.gather_tree(**named["given"])}


def _sharpened(mechanism, output, state, layer):
    alignments, state = mechanism(output, state)
    return mechanism.context(alignments**2), alignments, state


_JOINED = functools.partial(jnp.concatenate, axis=-1)
_OWN = {
    "swap_signs": lambda keys, values: (-keys, _JOINED([values, -values])),
    "sum_of_halves": lambda x, attention: _JOINED([x * 0.5, jnp.tanh(attention)]),
    "sharpened": _sharpened,
    "hardmax": contrib.hardmax,
}


def _attending(cell, mechanisms, memories, options, start, several=False):
    """The cell with its attention, and the initial state, which holds the memories.

    With one mechanism there are no lists, unless there could be `several`.
    """
    own = lambda given: {
        k: _OWN.get(v, v) if isinstance(v, str) else v for k, v in given.items()
    }
    made = [
        getattr(contrib, kind)(UNITS, memory.shape[-1], **own(given))
        for (kind, given), (memory, _) in zip(mechanisms, memories, strict=True)
    ]
    parts = made, *zip(*memories, strict=True)
    made, arrays, lengths = parts if several else [part[0] for part in parts]
    cell = contrib.AttentionWrapper(cell, made, **own(options))
    return cell, cell.initial_state(arrays, lengths, start)


def _attend(case, given, limit):
    (kind, units), start = case["cell"], given.get("cell_state")
    start = start and jaxrnn.LSTMStateTuple(**start)
    names, several = sorted(given["memory"]), case["several"]
    lengths = ([5, 1, 3], [2, 7, 4]) if case["memory_lengths"] else (None, None)
    memories = [(given["memory"][i], lengths[int(i)]) for i in names]
    cell = getattr(jaxrnn, kind)(units), case["mechanisms"], memories
    cell, start = _attending(*cell, case["wrapper"], start, several)
    cell, x = cell.bind(given["params"]), given["inputs"]
    outputs, state = jaxrnn.dynamic_rnn(cell, x, case["lengths"], start, x.dtype)
    each = lambda x: dict(zip(names, x if several else [x], strict=True))
    inner = state.cell_state
    parts = inner._asdict() if kind == "LSTMCell" else {"h": inner}
    parts |= {"time": state.time, "attention": state.attention}
    parts["alignments"] = each(state.alignments)
    if "alignment_history" in case["wrapper"]:
        history = each(state.alignment_history)
        parts["history"] = {i: array.stack() for i, array in history.items()}
    return {"outputs": outputs, "state": parts}


CALLS = {
    **dict.fromkeys(hand_loops.RUNS, _run_loop),
    "cell": _run_cell,
    "fused": _run_cell,
    "dynamic_rnn": _run_cell,
    "bidirectional_dynamic_rnn": _run_cell,
    "attention": _attend,
    "decode": _decode,
    "sequence_loss": _loss,
    "gather_tree": _gather,
}


def call(case, given, limit=None):
    """The results by part; under jit, `limit` bounds the steps of a loop."""
    is_cell_in_loop = "loop" in case and case["function"] == "dynamic_rnn"
    run_case = _run_loop if is_cell_in_loop else CALLS[case["function"]]
    results = run_case(case, given, limit)
    return {"results": results} if "given" in given else results


# The results, the gradients, and both compared.


def floats(tree):
    """The floating-point leaves by path."""
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    return {path: leaf for path, leaf in trees.leaves(tree) if is_float(leaf)}


def differentiated(call, given, cotangents):
    """The results of `call(given)`, and the gradients by path.

    A buffer that is larger than its cotangent gets ones beyond, which have no effect.
    """

    def differentiable(sources):
        full = trees.map_leaves(lambda path, leaf: sources.get(path, leaf), given)
        results = call(full)
        return floats(results), results

    def fitting(path, value):
        cotangent = jnp.asarray(cotangents[path])
        more = value.shape[0] - cotangent.shape[0] if value.ndim else 0
        spare = jnp.ones((max(more, 0), *value.shape[1:]), value.dtype)
        return jnp.concatenate([cotangent, spare]) if more > 0 else cotangent

    values, pull, results = jax.vjp(differentiable, floats(given), has_aux=True)
    (grads,) = pull({path: fitting(path, value) for path, value in values.items()})
    return results, grads


def run(case, *, jit=True, spare=0):
    """The results of a case, and the gradients by path, which are None without jit.

    Under jit, there is room for the steps that TensorFlow took, and for `spare` more.
    """
    given, count = arguments(case), steps(case)
    with warnings.catch_warnings():  # TensorFlow does not warn of a plain pair.
        warnings.filterwarnings("ignore", ".* has a plain pair")
        if not jit:
            return jax.tree.map(np.asarray, call(case, given)), None
        limit = None if count is None else count + spare
        run_case = functools.partial(call, case, limit=limit)
        named = store.arrays(case).items()
        cotangents = {f"/{path[3:]}": w for path, w in named if path.startswith("/w_")}
        both = jax.jit(functools.partial(differentiated, run_case))
        return jax.tree.map(np.asarray, both(given, cotangents))


def _trimmed(tree):
    """`tree` with no more in each stack than there are elements.

    Raises:
        AssertionError: If what is beyond is not zero.
    """
    if isinstance(tree, dict) and tree.keys() == {"size", "stack"}:
        beyond = tree["stack"][int(tree["size"]) :]
        assert not beyond.astype(bool).any(), "Beyond the elements are zeros."
        return {**tree, "stack": tree["stack"][: int(tree["size"])]}
    parts = trees.children(tree)
    if parts is None:
        return tree
    return trees.rebuild(tree, [_trimmed(part) for _, part in parts])


def pairs(case, *, jit=True, spare=0):
    """Each path with jaxrnn's array and TensorFlow's, of all that is recorded.

    Raises:
        AssertionError: If structures, shapes, dtypes or paths differ.
    """
    results, grads = run(case, jit=jit, spare=spare)
    results, structures = _trimmed(results), store.structures(case)
    for part, tree in results.items():
        assert trees.describe(tree) == structures[part], part
    parts = {part: dict(trees.leaves(tree)) for part, tree in results.items()}
    # Where contrib's cells deliberately differ, only the gradients differ.
    if grads is not None and not (case["folder"] == "contrib" and case["differs"]):
        parts["grads"] = grads
    for part, got in parts.items():
        wanted = store.below(case, part)
        assert got.keys() == wanted.keys(), part
        for path, array in got.items():
            what = wanted[path]
            assert (array.dtype, array.shape) == (what.dtype, what.shape), part + path
            yield f"{part}{path}", array, what


def check(case, *, jit=True, spare=0):
    """Compares all results of a case and, under jit, the gradients.

    What is no floating-point number is equal. An entry that is a small sum of large
    terms is rounded as those are.

    Raises:
        AssertionError: If one differs by more than the tolerance of the dtype.
    """
    slack = SLACK.get(case["family"], 1)
    for path, got, wanted in pairs(case, jit=jit, spare=spare):
        rtol, atol = TOLERANCES[case["dtype"]]
        if case.get("rtol"):
            rtol = atol = case["rtol"]
        if not store.is_float(wanted.dtype.name):
            rtol = atol = 0
        got, wanted = got.astype(np.float64), wanted.astype(np.float64)
        finite = np.abs(wanted[np.isfinite(wanted)])
        atol *= slack * max(1, finite[finite < 1e30].max(initial=0))
        how = {"equal_nan": False, "err_msg": path}
        np.testing.assert_allclose(got, wanted, rtol * slack, atol, **how)


# Calls that raise.


def _filled(cell, step):
    """Parameters of ones for one step of inputs; drawing numbers would compile."""
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), step))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)


def bound_cells(error):
    """The error's cells, bound to fresh parameters; none if one is only to be made."""
    if error["function"] == "build":
        return []
    leaf = lambda size: jax.ShapeDtypeStruct((3, *size["shape"]), jnp.float32)
    step, key = trees.sizes(error["step"], leaf), jax.random.key(0)
    specs = [spec for spec in (error["cell"], error["cell_bw"]) if spec is not None]
    bind = lambda cell: cell.bind(_filled(cell, step), key)
    return [s["not_a_cell"] if "not_a_cell" in s else bind(build(s)) for s in specs]


def attempt(error, bound):
    """Makes the call of an error with cells that are bound, or builds its cell."""
    function = error["function"]
    if function == "build":
        return build(error["cell"])
    values = error["arguments"].items()
    given = {key: hand_cells.argument(JAX, value) for key, value in values}
    if function in ("zero_state", "cell"):
        one = bound[0] if function == "cell" else bound[0].zero_state
        return one(**given)
    return getattr(jaxrnn, function)(*bound, **given)


def stand_ins(case):
    """Arguments and states of ones, and parameters, where TensorFlow's were drawn."""
    specs, dtype = case["cells"], case["dtype"]

    def ones(size, batched=False):
        rows = [case["batch"]] * (batched and size.get("batched", True))
        return jnp.ones(rows + size["shape"], size.get("dtype", dtype))

    def params(specs, depth=3):
        if specs.keys() & {"class", "cells", "custom"}:
            step = jax.ShapeDtypeStruct((3, depth), jnp.dtype(dtype))
            return _filled(build(specs), step)
        depths = [8 if name == "layer_1" else depth for name in specs]
        pairs = zip(specs, depths, strict=True)
        return {name: params(specs[name], depth) for name, depth in pairs}

    given = {key: trees.sizes(tree, ones) for key, tree in case["arguments"].items()}
    for name, value in case["values"].items():
        given[name] = jnp.asarray(np.asarray(value["values"], value["dtype"]))
    found = {"given": given}
    if specs is None or "not_a_cell" in str(specs):
        return found
    found["params"] = params(specs)
    if case["initial_state"] == "given":
        sizes, batched = case["state"], functools.partial(ones, batched=True)
        zeros = lambda: build(specs).zero_state(case["batch"], jnp.dtype(dtype))
        found["start"] = zeros() if sizes is None else trees.sizes(sizes, batched)
    return found
