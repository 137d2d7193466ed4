"""Attention: equal to contrib's, a cell as any other, blind to padding."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, drawn

import jaxrnn
import jaxrnn.decode
from jaxrnn import contrib

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "attention.npz"
CASES = json.loads(GOLDEN.with_suffix(".json").read_text())
# The steps and the depth of the first memory, and of the second.
MEMORIES = ((5, 6), (7, 2))
MEMORY_LENGTHS = ([5, 1, 3], [2, 7, 4])
TOLERANCES = {
    "float64": (1e-11, 1e-12),
    "float32": (2e-5, 2e-6),
    "float16": (2e-2, 1e-2),
}
NAMES = [case["name"] for case in CASES]


def swap_signs(keys, values):
    return -keys, jnp.concatenate([values, -values], axis=-1)


def sum_of_halves(inputs, attention):
    return jnp.concatenate([inputs * 0.5, jnp.tanh(attention)], axis=-1)


def sharpened(mechanism, cell_output, attention_state, attention_layer):
    alignments, state = mechanism(cell_output, attention_state)
    return mechanism.context(alignments**2), alignments, state


OWN = {f.__name__: f for f in (swap_signs, sum_of_halves, sharpened, contrib.hardmax)}


def named(options):
    return {k: OWN.get(v, v) if isinstance(v, str) else v for k, v in options.items()}


@functools.cache
def recorded():
    with np.load(GOLDEN) as stored:
        return {name: stored[name] for name in stored.files}


def below(case, prefix):
    start = f"{case['name']}/{prefix}"
    return {
        k.removeprefix(start): v for k, v in recorded().items() if k.startswith(start)
    }


def build(case):
    mechanisms = [
        getattr(contrib, kind)(4, depth, **named(options))
        for (kind, options), (_, depth) in zip(
            case["mechanisms"], MEMORIES, strict=False
        )
    ]
    kind, units = case["cell"]
    return contrib.AttentionWrapper(
        getattr(jaxrnn, kind)(units),
        mechanisms if case["several"] else mechanisms[0],
        **named(case["wrapper"]),
    )


def nested(flat):
    tree = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def initial_state(case, cell, given):
    count = len(case["mechanisms"])
    memories = [given[f"memory/{i}"] for i in range(count)]
    lengths = [*MEMORY_LENGTHS[:count]] if case["memory_lengths"] else [None] * count
    cell_state = None
    if case["given_cell_state"]:
        parts = [given[f"cell_state/{name}"] for name in "ch"]
        cell_state = jaxrnn.LSTMStateTuple(*parts)
    pick = lambda x: x if case["several"] else x[0]
    return cell.initial_state(pick(memories), pick(lengths), cell_state)


def parts_of(case, state):
    several, cells = case["several"], state.cell_state
    found = {"state/time": state.time, "state/attention": state.attention}
    found |= {"state/c": cells.c} if hasattr(cells, "c") else {}
    found["state/h"] = getattr(cells, "h", cells)
    for i in range(len(case["mechanisms"])):
        pick = lambda x, i=i: x[i] if several else x
        found[f"state/alignments/{i}"] = pick(state.alignments)
        if case["wrapper"].get("alignment_history"):
            found[f"state/history/{i}"] = pick(state.alignment_history).stack()
    return found


def run(case, given):
    cell = build(case)
    params = nested(
        {k.removeprefix("params/"): v for k, v in given.items() if k[:7] == "params/"}
    )
    outputs, state = jaxrnn.dynamic_rnn(
        cell.bind(params),
        given["inputs"],
        case["lengths"],
        initial_state=initial_state(case, cell, given),
        dtype=given["inputs"].dtype,
    )
    return {"outputs": outputs} | parts_of(case, state)


@pytest.mark.fast("bahdanau_norm-ragged", "luong_recursive-whole")
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_same_as_contrib(case):
    grads = {k.removeprefix("/"): v for k, v in below(case, "grads").items()}
    given = {k: jnp.asarray(below(case, k)[""]) for k in grads}
    weights = {k.removeprefix("/"): v for k, v in below(case, "w").items()}

    def total(given):
        results = run(case, given)
        return sum(jnp.sum(results[k] * w) for k, w in weights.items()), results

    got, results = jax.jit(jax.grad(total, has_aux=True))(given)
    rtol, atol = TOLERANCES[case["dtype"]]
    wanted = {k: below(case, k)[""] for k in results}
    for name, value in {**results, **{f"grads/{k}": v for k, v in got.items()}}.items():
        want = grads[name[6:]] if name.startswith("grads/") else wanted[name]
        want = want.astype(np.float64)
        scale = max(1, np.abs(want).max(initial=0))
        np.testing.assert_allclose(
            np.asarray(value, np.float64), want, rtol, atol * scale, err_msg=name
        )


def test_every_array_belongs_to_a_case():
    assert {name.split("/")[0] for name in recorded()} == set(NAMES)


B, S, D, I, H = 3, 6, 4, 3, 5
LENGTHS = [6, 0, 2]


def attending(mechanism=None, inner=None, **options):
    mechanism = mechanism or contrib.BahdanauAttention(H, D)
    return contrib.AttentionWrapper(
        inner or jaxrnn.LSTMCell(H), mechanism, H, **options
    )


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def params_of(cell):
    return bound(cell, I, "float32", 1, scale=0.5).params


def over_time(cell, params, memory, x, lengths=None, **options):
    state = cell.initial_state(memory, LENGTHS)
    return jaxrnn.dynamic_rnn(
        cell.bind(params), x, lengths, initial_state=state, dtype=x.dtype, **options
    )


@pytest.mark.fast("mechanism1")
@pytest.mark.parametrize(
    "mechanism",
    [
        contrib.BahdanauAttention(H, D),
        contrib.LuongMonotonicAttention(H, D, mode="recursive"),
    ],
)
def test_the_padding_of_a_memory_leaves_no_trace(mechanism):
    cell, memory, x = attending(mechanism), draw(B, S, D), draw(B, 4, I)
    params = params_of(cell)
    beyond = np.arange(S)[None, :, None] >= np.array(LENGTHS)[:, None, None]

    def loss(params, memory):
        outputs, state = over_time(cell, params, memory, x)
        return jnp.sum(outputs**2) + jnp.sum(state.alignments**3), state.alignments

    grads = jax.grad(loss, (0, 1), has_aux=True)
    clean, alignments = grads(params, memory)
    dirty, _ = grads(params, jnp.where(beyond, jnp.nan, memory))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert not np.asarray(alignments)[beyond[..., 0]].any()
    assert not np.asarray(clean[1])[np.broadcast_to(beyond, memory.shape)].any()


@pytest.mark.slow
def test_static_rnn_and_modules_take_it():
    linen = pytest.importorskip("jaxrnn.linen")
    nnx = pytest.importorskip("jaxrnn.nnx")
    cell, memory, x = attending(), draw(B, S, D), draw(B, 4, I)
    params, lengths = params_of(cell), [4, 1, 3]
    state = cell.initial_state(memory, LENGTHS)
    want, _ = over_time(cell, params, memory, x, lengths)
    steps = list(jnp.swapaxes(x, 0, 1))
    got, _ = jaxrnn.static_rnn(
        cell.bind(params), steps, state, x.dtype, sequence_length=lengths
    )
    np.testing.assert_allclose(np.stack(got, 1), want, 1e-5, 1e-6)
    variables = {"params": {"attention_wrapper": params}}
    module = linen.RNN(cell)
    got = module.apply(variables, x, lengths, initial_state=state)
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)
    from flax import nnx as flax_nnx

    made = nnx.RNN(cell, I, rngs=flax_nnx.Rngs(0))
    assert made(x, lengths, initial_state=state).shape == want.shape


class Plain(jaxrnn.RNNCell):
    """A user's wrapper, which does not hand on `start`."""

    def __init__(self, cell):
        self.cell = cell

    state_size = property(lambda self: self.cell.state_size)
    output_size = property(lambda self: self.cell.output_size)

    def init(self, key, inputs, dtype=None):
        return {"cell": self.cell.init(key, inputs, dtype)}

    def apply(self, params, inputs, state, key=None):
        return self.cell.apply(params["cell"], inputs, state, key)


@pytest.mark.slow
def test_inside_a_wrapper_that_does_not_start_it():
    cell, memory, x = attending(), draw(B, S, D), draw(B, 4, I)
    params = params_of(cell)
    want, _ = over_time(cell, params, memory, x, [4, 1, 3])
    state = cell.initial_state(memory, LENGTHS)
    wrapped = Plain(cell).bind({"cell": params})
    got, final = jaxrnn.dynamic_rnn(wrapped, x, [4, 1, 3], state, x.dtype)
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)
    assert jax.tree.structure(final) == jax.tree.structure(state)
    helper = contrib.TrainingHelper(x, [4, 1, 3])
    decoder = contrib.BasicDecoder(wrapped, helper, state)
    outputs, _, _ = contrib.dynamic_decode(decoder, impute_finished=True)
    np.testing.assert_allclose(outputs.rnn_output, want, 1e-5, 1e-6)


def test_a_stack_shares_nothing_of_it():
    cell, x = attending(), draw(B, 4, I)
    stack = jaxrnn.MultiRNNCell([cell, jaxrnn.GRUCell(2)])
    params = drawn(stack, x[:, 0])
    memory = draw(B, S, D)
    attention, _ = over_time(cell, params["cell_0"], memory, x)
    upper = stack.cells[1].bind(params["cell_1"])
    want, _ = jaxrnn.dynamic_rnn(upper, attention, dtype=x.dtype)
    state = cell.initial_state(memory, LENGTHS), upper.zero_state(B, x.dtype)
    got, _ = jaxrnn.dynamic_rnn(
        stack.bind(params), x, initial_state=state, dtype=x.dtype
    )
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)


@dataclasses.dataclass(frozen=True, eq=False)
class Located(contrib.BahdanauAttention):
    """Tacotron 2's attention: it sees the sum of all alignments so far."""

    filters: int = 2
    width: int = 3

    def param_specs(self, query_depth):
        normal = jax.nn.initializers.normal(1.0)
        return super().param_specs(query_depth) | {
            "conv": jaxrnn.ParamSpec((self.width, 1, self.filters), normal),
            "layer": jaxrnn.ParamSpec((self.filters, self.num_units), normal),
        }

    def score(self, params, query, keys, previous):
        flat = previous.reshape(-1, previous.shape[2], 1)
        features = jax.lax.conv_general_dilated(
            flat, params["conv"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        location = (features @ params["layer"]).reshape(*previous.shape, -1)
        query = (query @ params["query_layer"]["kernel"])[:, :, None]
        return jnp.tanh(keys[:, None] + query + location) @ params["attention_v"]

    def next_state(self, alignments, previous):
        return previous + alignments


def test_a_users_mechanism_sees_what_it_carries():
    """Tacotron 2's equations (arXiv:1712.05884, arXiv:1506.07503) in NumPy."""
    rng = np.random.default_rng(0)
    x, memory = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 6, 5))
    lengths, rnn = np.array([6, 4]), jaxrnn.BasicRNNCell(4)
    cell = contrib.AttentionWrapper(rnn, Located(3, 5), output_attention=False)
    params = drawn(cell, jnp.asarray(x[:, 0]))
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
    padded = np.where(np.arange(6)[:, None] < lengths[:, None, None], memory, np.nan)
    outputs, state = jaxrnn.dynamic_rnn(
        cell.bind(params), jnp.asarray(x), dtype=jnp.float64,
        initial_state=cell.initial_state(jnp.asarray(padded), lengths),
    )  # fmt: skip

    p = jax.tree.map(np.asarray, params)
    own = p["located"]
    for b, n in enumerate(lengths):
        entries, h, context, total = (
            memory[b, :n],
            np.zeros(4),
            np.zeros(5),
            np.zeros(n),
        )
        keys = entries @ p["memory_layer"]["kernel"]
        for t in range(4):
            z = np.concatenate([x[b, t], context, h]) @ p["basic_rnn_cell"]["kernel"]
            h = np.tanh(z + p["basic_rnn_cell"]["bias"])
            np.testing.assert_allclose(outputs[b, t], h, rtol=1e-12)
            wide = np.pad(total, 1)
            features = np.stack([wide[s : s + 3] @ own["conv"][:, 0] for s in range(n)])
            energy = keys + h @ own["query_layer"]["kernel"] + features @ own["layer"]
            score = np.exp(np.tanh(energy) @ own["attention_v"])
            alignments = score / score.sum()
            total, context = total + alignments, alignments @ entries
        np.testing.assert_allclose(state.attention_state[b, :n], total, rtol=1e-12)
        assert not state.attention_state[b, n:].any()


@pytest.mark.slow
def test_beams_share_the_memory_of_their_example():
    cell, width = attending(), 3
    params = params_of(cell)
    memory, lengths = draw(B, S, D), jnp.asarray(LENGTHS)
    table, project = draw(7, I), draw(H, 7)

    def search(state, rows):
        return jaxrnn.decode.beam_search(
            cell.bind(params),
            lambda ids: table[ids],
            lambda output: output @ project,
            state,
            jnp.zeros(rows, jnp.int32),
            1,
            5,
            width,
        )

    found = search(cell.initial_state(memory, lengths), B)
    x = draw(B * width, 4, I)
    tiled = jaxrnn.decode.tile_beams(cell.initial_state(memory, lengths), width)
    assert tiled.memory.value.values.shape[0] == B
    by_hand = cell.initial_state(*jaxrnn.decode.tile_beams((memory, lengths), width))
    run = lambda state: jaxrnn.dynamic_rnn(
        cell.bind(params), x, initial_state=state, dtype=x.dtype
    )[0]
    np.testing.assert_allclose(run(tiled), run(by_hand), 1e-5, 1e-6)
    for row in range(B):  # Alone, with the memory of that row.
        part = slice(row, row + 1)
        alone = search(cell.initial_state(memory[part], lengths[part]), 1)
        np.testing.assert_array_equal(found.ids[part], alone.ids)
        np.testing.assert_allclose(found.scores[part], alone.scores, 1e-5)


def test_the_memory_is_saved_once_not_at_each_step():
    cell = attending(contrib.LuongAttention(H, 64))
    params, x = params_of(cell), draw(B, 32, I)
    memory = draw(B, 64, 64)

    def loss(params):
        state = cell.initial_state(memory)
        outputs, _ = jaxrnn.dynamic_rnn(
            cell.bind(params), x, [32, 1, 9], initial_state=state, dtype=x.dtype
        )
        return jnp.sum(outputs)

    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    # 48 KiB; its copies for 32 steps would be 1.5 MiB.
    assert compiled.memory_analysis().temp_size_in_bytes < 2**19


def test_noise_is_drawn_from_the_key_of_the_run():
    mechanism = contrib.LuongMonotonicAttention(H, D, sigmoid_noise=1.0)
    cell, x = attending(mechanism), draw(B, 4, I)
    params, state = params_of(cell), cell.initial_state(draw(B, S, D))
    run = lambda key: jaxrnn.dynamic_rnn(
        cell.bind(params, key), x, initial_state=state, dtype=x.dtype
    )[0]
    one, same, other, none = map(run, (*map(jax.random.key, (1, 1, 2)), None))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    quiet = attending(contrib.LuongMonotonicAttention(H, D))
    want, _ = jaxrnn.dynamic_rnn(
        quiet.bind(params), x, initial_state=state, dtype=x.dtype
    )
    np.testing.assert_array_equal(none, want)
    assert cell.is_random
    assert not quiet.is_random


@pytest.mark.parametrize("mode", ["recursive", "parallel", "hard"])
def test_monotonic_attention_follows_its_definition(mode):
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, (2, 6))
    p = (p > 0.6).astype(float) if mode == "hard" else p
    previous = np.eye(6)[[1, 0]] if mode == "hard" else rng.dirichlet(np.ones(6), 2)
    want = np.zeros_like(p)
    for row, start, i in np.ndindex(2, 6, 6):
        if start <= i:  # From `start` to i, past all between.
            passed = np.prod(1 - p[row, start:i])
            want[row, i] += previous[row, start] * passed * p[row, i]
    got = contrib.monotonic_attention(jnp.asarray(p), jnp.asarray(previous), mode)
    np.testing.assert_allclose(got, want, 1e-9, 1e-12)


def refusals():
    cell, memory = attending(), draw(B, S, D)
    params, x, state = params_of(cell), draw(B, 4, I), cell.initial_state(memory)
    run = lambda x, state: jaxrnn.dynamic_rnn(
        cell.bind(params), x, initial_state=state, dtype=x.dtype
    )
    luong = contrib.LuongAttention(H + 1, D)
    return {
        "no_memory": (ValueError, "cell.initial_state", lambda: run(x, None)),
        "rows": (
            ValueError,
            "must have 2 rows like the inputs",
            lambda: run(x[:2], state),
        ),
        "dtype": (
            TypeError,
            "dtype of the memory",
            lambda: run(x.astype(jnp.float16), state),
        ),
        "memory_as_depth": (
            TypeError,
            "`memory_depth` must be an integer",
            lambda: contrib.LuongAttention(H, memory),
        ),
        "memory_by_name": (
            TypeError,
            "`memory` is not an argument. .* of `AttentionWrapper.initial_state`",
            lambda: contrib.BahdanauAttention(H, memory=memory),
        ),
        "cell_state": (
            TypeError,
            "`cell_state` must have the structure LSTMStateTuple",
            lambda: cell.initial_state(memory, cell_state=(x[:, 0], x[:, 0])),
        ),
        "cell_state_rows": (
            ValueError,
            "`cell_state.c` must have shape",
            lambda: cell.initial_state(
                memory, cell_state=jaxrnn.LSTMStateTuple(x[:, 0], x[:, 0])
            ),
        ),
        "rows_of_memories": (
            ValueError,
            "as many rows as `memory",
            lambda: contrib.AttentionWrapper(
                jaxrnn.GRUCell(H + 1), [luong, luong]
            ).initial_state((memory, memory[:1])),
        ),
        "dtype_of_mechanism": (
            TypeError,
            "the dtype of the mechanism",
            lambda: contrib.AttentionWrapper(
                jaxrnn.GRUCell(H), contrib.LuongAttention(H, D, dtype=jnp.float16)
            ).initial_state(memory),
        ),
        "depth": (
            ValueError,
            r"must be \[batch, memory_time, 4\], .* `memory_depth`",
            lambda: cell.initial_state(memory[..., :2]),
        ),
        "rank": (
            ValueError,
            "memory_time, 4",
            lambda: cell.initial_state(memory[0]),
        ),
        "lengths": (
            ValueError,
            "`memory_sequence_length` must be a vector of length",
            lambda: cell.initial_state(memory, [1]),
        ),
        "state": (
            TypeError,
            "AttentionWrapperState with its memory",
            lambda: cell.bind(params)(x[:, 0], jnp.zeros(3)),
        ),
        "query": (
            ValueError,
            "size of the cell's output",
            lambda: attending(luong).init(jax.random.key(0), x[:, 0]),
        ),
        "sizes": (
            ValueError,
            "must have length 1, with one size per mechanism",
            lambda: contrib.AttentionWrapper(jaxrnn.GRUCell(H), luong, [1, 2]),
        ),
        "two_memories": (
            ValueError,
            r"hold one entry for each of 2 mechanisms",
            lambda: contrib.AttentionWrapper(
                jaxrnn.GRUCell(H), [luong, luong]
            ).initial_state((memory,)),
        ),
        "mode": (
            ValueError,
            "'recursive', 'parallel', 'hard'",
            lambda: contrib.LuongMonotonicAttention(H, D, mode="soft"),
        ),
        "seed": (
            TypeError,
            "`sigmoid_noise_seed` must be an integer, got True",
            lambda: contrib.LuongMonotonicAttention(H, D, sigmoid_noise_seed=True),
        ),
        "clone": (
            ValueError,
            "`cell_state.c` must have shape",
            lambda: state.clone(
                cell_state=jaxrnn.LSTMStateTuple(jnp.zeros(3), jnp.zeros(3))
            ),
        ),
        "packed": (
            ValueError,
            "packed_rnn: `initial_state` must not hold an attention memory",
            lambda: jaxrnn.packed_rnn(
                cell.bind(params),
                jaxrnn.pack_sequences([np.ones((2, I), np.float32)] * B),
                initial_state=state,
                dtype=x.dtype,
            ),
        ),
    }


@pytest.mark.parametrize("name", refusals())
def test_refuses(name):
    error, message, call = refusals()[name]
    with pytest.raises(error, match=message):
        call()


def test_names_of_the_core_are_pointed_to():
    with pytest.raises(AttributeError, match="It is `jaxrnn"):
        _ = contrib.MultiRNNCell
    with pytest.raises(AttributeError, match="in this module itself"):
        _ = contrib.seq2seq
    with pytest.raises(AttributeError, match="legacy_seq2seq"):
        _ = contrib.rnn_decoder


def test_an_argument_of_tensorflows_wrapper_is_pointed_to():
    mechanism = contrib.LuongAttention(H, D)
    with pytest.raises(TypeError, match=r"`initial_cell_state` is .*initial_state`"):
        contrib.AttentionWrapper(jaxrnn.GRUCell(H), mechanism, initial_cell_state=None)


def test_each_run_computes_the_keys_from_its_own_parameters():
    cell, memory, x = attending(), draw(B, S, D), draw(B, 4, I)
    params = params_of(cell)
    run = lambda params, state: jaxrnn.dynamic_rnn(
        cell.bind(params), x, initial_state=state, dtype=x.dtype
    )
    first = cell.initial_state(memory, LENGTHS)
    _, passed_on = run(params, first)
    assert jax.tree.structure(passed_on) == jax.tree.structure(first)

    def loss(params, state):
        return jnp.sum(run(params, state)[0])

    gradient = jax.grad(loss)(params, passed_on)["memory_layer"]["kernel"]
    assert np.abs(gradient).max() > 0
    other = jax.tree.map(lambda p: 2 * p, params)
    fresh = passed_on._replace(memory=cell.initial_state(memory, LENGTHS).memory)
    np.testing.assert_array_equal(run(other, passed_on)[0], run(other, fresh)[0])


def test_windows_are_scanned_and_buffers_donated():
    cell, memory, x = attending(), draw(B, S, D), draw(6, B, 2, I)
    bound = cell.bind(params_of(cell))

    def window(state, x):
        outputs, state = jaxrnn.dynamic_rnn(
            bound, x, initial_state=state, dtype=x.dtype
        )
        return state, outputs

    start = cell.initial_state(memory, LENGTHS)
    whole = jnp.concatenate(list(x), axis=1)
    want = window(start, whole)[1]
    run = jax.jit(lambda s: jax.lax.scan(window, s, x), donate_argnums=0)
    _, got = run(start)
    np.testing.assert_allclose(np.concatenate(got, axis=1), want, 1e-5, 1e-6)


def test_padding_that_a_custom_key_value_fn_divides_by_leaves_no_trace():
    def unit(keys, values):
        return keys, values / jnp.linalg.norm(values, axis=-1, keepdims=True)

    cell = attending(contrib.LuongAttention(H, D, custom_key_value_fn=unit))
    outputs, _ = over_time(cell, params_of(cell), draw(B, S, D), draw(B, 4, I))
    assert np.isfinite(outputs).all()


def test_parallel_mode_is_finite_in_half_precision():
    p, previous = np.full((1, 30), 0.982), np.full((1, 30), 1 / 30)
    args = (jnp.asarray(a, jnp.float16) for a in (p, previous))
    assert np.isfinite(contrib.monotonic_attention(*args, "parallel")).all()
