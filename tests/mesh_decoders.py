"""The rows of the sweep over meshes: decoders, losses, and contrib's functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from cases import CASES
from helpers import drawn
from mesh_rows import CELL, PARAMS, PLAIN
from mesh_sweep import Row, parameters
from mesh_values import BATCH, DEPTH, UNITS, Arrays, copies

import jaxrnn
from jaxrnn import contrib, decode

VOCABULARY, STEPS, BEAMS = 5, 4, 3
TABLE = copies(lambda c: 2 * c.draw(VOCABULARY, DEPTH))
KERNEL = copies(lambda c: 2 * c.draw(UNITS, VOCABULARY))
STATE = Arrays(lambda c: c.state(c.cell, 1))
START = Arrays(lambda c: np.array([2, 0, 3, 4], np.int32))
MODEL = {"params": PARAMS, "table": TABLE, "kernel": KERNEL, "initial_state": STATE}
IDS = {"start_ids": START, "end_id": 1}
OF_MODEL = CELL | dict.fromkeys(
    ["embed", "project"], "functions of `table` and `kernel`, which the row passes"
)
SETTINGS = {
    "length_penalty": [0.6],
    "temperature": [0.7],
    "top_k": [3],
    "top_p": [0.8],
}
KEY = jax.random.key(0)


def model(context, params, table, kernel):
    # A product, because a lookup on an explicit mesh must state how it is divided.
    def embed(ids):
        return jax.nn.one_hot(ids, VOCABULARY, dtype=table.dtype) @ table

    cell = context.cell.bind(params)
    return {"cell": cell, "embed": embed, "project": lambda output: output @ kernel}


def decoder(function, **given):
    def run(context, params, table, kernel, **arguments):
        return function(**model(context, params, table, kernel), **arguments)

    given = {**MODEL, **IDS, **given}
    return Row(run, (function,), given, SETTINGS, OF_MODEL, PLAIN)


def loop(function, **given):
    """A decoder's loop function in `raw_rnn`; the decoder's row has its arguments."""

    def run(context, params, table, kernel, **arguments):
        parts = model(context, params, table, kernel)
        cell = parts.pop("cell")
        loop_fn = function(**parts, **arguments)
        emit_ta, _, loop_state = jaxrnn.raw_rnn(cell, loop_fn, max_time=STEPS)
        stack = lambda ta: ta.stack()
        return jax.tree.map(stack, emit_ta, is_leaf=is_array), loop_state

    is_array = lambda x: isinstance(x, jaxrnn.TensorArray)
    given = {**MODEL, **IDS, **given}
    left_out = OF_MODEL | dict.fromkeys(SETTINGS, "the decoder's row has its values")
    return Row(run, (function,), given, left_out=left_out, factors=PLAIN)


def together(context, params, table, kernel, initial_state, **arguments):
    one = model(context, params, table, kernel) | {"initial_state": initial_state}
    both = decode.ensemble(
        [one, one | {"project": lambda output: -one["project"](output)}]
    )
    return decode.greedy(**both, **arguments)


# Contrib.

FLAGS = ["average_across_timesteps", "average_across_batch"]
SUMS = ["sum_over_timesteps", "sum_over_batch"]


def cross_entropy(labels, logits):
    log_probs = jax.nn.log_softmax(logits)
    chosen = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -jnp.sum(log_probs * chosen, axis=-1)


DECODE = contrib.dynamic_decode
OF_HELPER = {
    "next_inputs_fn": "a function of the user",
    "auxiliary_inputs": "of one helper",
    "scheduling_seed": "draws",
    "decoder": "the row's decoder",
    "output_layer": "`kernel`",
    "key": "one key",
    "seed": "one key",
    "parallel_iterations": "without effect",
    "softmax_temperature": "a factor of the logits",
    "swap_memory": "the row of `TrainingHelper` has its value",
    "maximum_iterations": "`max_time` limits the steps",
}


def helped(helper, values=(), **given):
    """`dynamic_decode` of a `BasicDecoder` with a helper.

    Args:
        helper: The helper's class.
        values: The arguments of `dynamic_decode` that have values.
        **given: The helper's arguments.
    """
    of_helper = parameters(helper)

    def run(context, params, kernel, initial_state, **arguments):
        others = {n: arguments.pop(n) for n in arguments.keys() - of_helper}
        project = lambda outputs: outputs @ kernel
        cell = context.cell.bind(params)
        basic = contrib.BasicDecoder(cell, helper(**arguments), initial_state, project)
        return DECODE(basic, **others)

    model = {"params": PARAMS, "kernel": KERNEL, "initial_state": STATE}
    given = {**model, "max_time": STEPS, **given}
    others = parameters(DECODE) - {*values}
    left_out = dict.fromkeys(others, "the row of `TrainingHelper` has its values")
    flags = {name: [True] for name in values}
    return Row(run, (helper, DECODE), given, flags, OF_HELPER | left_out, PLAIN)


def beam_decoded(
    context, params, table, kernel, initial_state, start_tokens, **arguments
):
    of_decoder = parameters(contrib.BeamSearchDecoder)
    options = {n: arguments.pop(n) for n in arguments.keys() & of_decoder}
    tiled = contrib.tile_batch(initial_state, BEAMS)
    cell = context.cell.bind(params)
    made = contrib.BeamSearchDecoder(
        cell, table, start_tokens, 1, tiled, BEAMS, lambda y: y @ kernel, **options
    )
    return DECODE(made, **arguments)


SEQUENCES = Arrays(lambda c: c.draw(BATCH, STEPS, DEPTH))
FED = {"inputs": SEQUENCES, "sequence_length": Arrays(lambda c: np.array([4, 1, 3, 2]))}


def fused(make):
    cell = make()

    def run(context, params, inputs, **arguments):
        return make().bind(params)(inputs, dtype=inputs.dtype, **arguments)

    bound = type(cell.bind({}))
    x = jax.ShapeDtypeStruct((5, BATCH, DEPTH), np.float64)
    inputs = Arrays(lambda c: c.draw(5, BATCH, DEPTH), "time")
    given = {"params": copies(lambda c: drawn(cell, x)), "inputs": inputs}
    pair = lambda c: jaxrnn.LSTMStateTuple(c.draw(BATCH, UNITS), c.draw(BATCH, UNITS))
    return Row(
        run, (bound.__call__,), given, {"initial_state": [Arrays(pair)]}, {}, PLAIN
    )


def attended(mechanism):
    wrapper = contrib.AttentionWrapper(
        jaxrnn.GRUCell(UNITS), mechanism(UNITS, DEPTH), 2
    )

    def run(context, params, inputs, memory, lengths):
        state = wrapper.initial_state(memory, lengths)
        return jaxrnn.dynamic_rnn(
            wrapper.bind(params), inputs, lengths, state, inputs.dtype
        )

    def params(context):
        step = jax.ShapeDtypeStruct((BATCH, DEPTH), np.float64)
        return drawn(wrapper, step, step.dtype)

    given = {
        "params": copies(params),
        "inputs": SEQUENCES,
        "memory": Arrays(lambda c: c.draw(BATCH, STEPS, DEPTH, seed=1)),
        "lengths": FED["sequence_length"],
    }
    return Row(run, (), given, factors=PLAIN)


def function(fn, is_differentiated=True, **given):
    """A function of arrays alone."""
    run = lambda context, **arguments: fn(**arguments)
    options = {"factors": PLAIN, "is_differentiated": is_differentiated}
    return Row(run, (fn,), given, **options)


def over_time(name):
    """A cell of `cases.py` by `dynamic_rnn` with lengths."""
    case = CASES[name]

    def sequences(context):
        def draw(x):
            shape = (BATCH, 3, *x.shape[1:])
            if jnp.issubdtype(x.dtype, jnp.floating):
                return (0.5 + np.abs(context.draw(*shape))).astype(x.dtype)
            return np.ones(shape, x.dtype)

        return jax.tree.map(draw, case.inputs)

    def state(context):
        if case.state is not None:
            cast = lambda x: x.astype(jnp.float32) if x.dtype == np.float64 else x
            return jax.tree.map(lambda x: cast(jnp.asarray(x)), case.state)
        zeros = jax.eval_shape(lambda: case.cell.zero_state(BATCH, np.float32))
        return jax.tree.map(lambda x: context.draw(*x.shape).astype(x.dtype), zeros)

    def run(context, params, inputs, state, lengths):
        cell = case.cell.bind(params, case.key)
        return jaxrnn.dynamic_rnn(cell, inputs, lengths, state, jnp.float32)

    given = {
        "params": copies(lambda c: drawn(case.cell, case.inputs, np.float32)),
        "inputs": Arrays(sequences),
        "state": Arrays(state),
        "lengths": Arrays(lambda c: np.array([3, 0, 2, 1])),
    }
    factors = PLAIN | {"mesh": ["of_context"]}
    return Row(run, (), given, factors=factors, dtype="float32")


# One row of each class of cells, except for those that run a loop which cells share. A
# lookup in the user's step must say how it is divided.
SHARED = jaxrnn.AffineCell | jaxrnn.LinearRecurrenceCell
ONE_OF_EACH = {
    type(case.cell): name
    for name, case in reversed(CASES.items())
    if name != "function_integers" and not isinstance(case.cell, SHARED)
}.values()
LOGITS = {
    "logits": Arrays(lambda c: c.draw(BATCH, STEPS, VOCABULARY)),
    "targets": Arrays(lambda c: np.arange(BATCH * STEPS).reshape(BATCH, STEPS) % 5),
    "weights": Arrays(lambda c: c.booleans(0, 0.7)[:, :STEPS].astype(float)),
}
TREE = {
    "step_ids": Arrays(lambda c: np.arange(48).reshape(4, 4, 3) % 5, "time"),
    "parent_ids": Arrays(lambda c: np.arange(48).reshape(4, 4, 3) % 3, "time"),
    "max_sequence_lengths": Arrays(lambda c: np.array([4, 1, 3, 2])),
}
ROWS = {
    "reverse_sequence": function(
        jaxrnn.reverse_sequence,
        input=SEQUENCES,
        seq_lengths=FED["sequence_length"],
        seq_axis=1,
        batch_axis=0,
    ),
    "decode.greedy": decoder(decode.greedy, max_time=STEPS),
    "decode.sample": decoder(decode.sample, max_time=STEPS, key=KEY),
    "decode.beam_search": decoder(decode.beam_search, max_time=STEPS, beam_width=BEAMS),
    "decode.score": decoder(
        decode.score,
        ids=Arrays(lambda c: np.arange(BATCH * STEPS).reshape(BATCH, STEPS) % 5),
    ),
    "decode.greedy_loop": loop(decode.greedy_loop),
    "decode.sampling_loop": loop(decode.sampling_loop, key=KEY),
    "decode.beam_loop": loop(decode.beam_loop, beam_width=BEAMS),
    "decode.ensemble": Row(
        together, (), {**MODEL, **IDS, "max_time": STEPS}, factors=PLAIN
    ),
    "decode.tile_beams": function(decode.tile_beams, tree=STATE, beam_width=BEAMS),
    "contrib.sequence_loss": Row(
        lambda context, **arguments: contrib.sequence_loss(**arguments),
        (contrib.sequence_loss,),
        LOGITS,
        {
            **{name: [False] for name in FLAGS},
            **{name: [True] for name in SUMS},
            "softmax_loss_function": [cross_entropy],
        },
        factors=PLAIN,
    ),
    "contrib.TrainingHelper": helped(
        contrib.TrainingHelper,
        ["impute_finished", "output_time_major", "swap_memory"],
        time_major=False,
        **FED,
    ),
    "contrib.ScheduledEmbeddingTrainingHelper": helped(
        contrib.ScheduledEmbeddingTrainingHelper,
        **FED,
        embedding=TABLE,
        sampling_probability=0.5,
        key=KEY,
        time_major=False,
    ),
    "contrib.ScheduledOutputTrainingHelper": helped(
        contrib.ScheduledOutputTrainingHelper,
        **FED,
        sampling_probability=0.5,
        key=KEY,
        time_major=False,
        next_inputs_fn=lambda outputs: outputs[:, :DEPTH],
    ),
    "contrib.GreedyEmbeddingHelper": helped(
        contrib.GreedyEmbeddingHelper, embedding=TABLE, start_tokens=START, end_token=1
    ),
    "contrib.SampleEmbeddingHelper": helped(
        contrib.SampleEmbeddingHelper,
        embedding=TABLE,
        start_tokens=START,
        end_token=1,
        key=KEY,
    ),
    "contrib.InferenceHelper": helped(
        contrib.InferenceHelper,
        sample_fn=lambda outputs: outputs,
        sample_shape=[VOCABULARY],
        sample_dtype=np.float64,
        start_inputs=Arrays(lambda c: c.draw(BATCH, DEPTH)),
        end_fn=lambda sample: sample[:, 0] > 2.0,
        next_inputs_fn=lambda sample: sample[:, :DEPTH],
    ),
    "contrib.BeamSearchDecoder": Row(
        beam_decoded,
        (contrib.BeamSearchDecoder, DECODE),
        {**MODEL, "start_tokens": START, "max_time": STEPS},
        {"length_penalty_weight": [0.6]},
        OF_HELPER
        | OF_MODEL
        | dict.fromkeys(["embedding", "end_token", "beam_width"], "fixed")
        | dict.fromkeys(
            ["coverage_penalty_weight", "reorder_tensor_arrays"], "attention"
        )
        | {"impute_finished": "refused", "output_time_major": "as for helpers"},
        PLAIN,
    ),
    "contrib.gather_tree": function(contrib.gather_tree, False, end_token=1, **TREE),
    "contrib.tile_batch": function(contrib.tile_batch, t=STATE, multiplier=BEAMS),
    "contrib.hardmax": function(
        contrib.hardmax, logits=Arrays(lambda c: c.draw(BATCH, VOCABULARY))
    ),
    **{
        f"contrib.monotonic_attention-{mode}": function(
            contrib.monotonic_attention,
            p_choose_i=Arrays(lambda c: np.abs(c.draw(BATCH, 5)) % 1),
            previous_attention=Arrays(lambda c: np.eye(BATCH, 5)),
            mode=mode,
        )
        for mode in ("recursive", "parallel", "hard")
    },
    "contrib.LSTMBlockFusedCell": fused(lambda: contrib.LSTMBlockFusedCell(UNITS)),
    "contrib.FusedRNNCellAdaptor": fused(
        lambda: contrib.FusedRNNCellAdaptor(
            jaxrnn.LSTMCell(UNITS), use_dynamic_rnn=True
        )
    ),
    "contrib.TimeReversedFusedRNN": fused(
        lambda: contrib.TimeReversedFusedRNN(contrib.LSTMBlockFusedCell(UNITS))
    ),
    **{
        f"contrib.{name}": attended(getattr(contrib, name))
        for name in (
            "BahdanauAttention",
            "LuongAttention",
            "BahdanauMonotonicAttention",
            "LuongMonotonicAttention",
        )
    },
    **{f"cell.{name}": over_time(name) for name in ONE_OF_EACH},
}
# Of the package, only drivers have code for automatic meshes.
ROWS |= {
    name: dataclasses.replace(row, on_auto="none")
    for name, row in ROWS.items()
    if name.startswith(("contrib.", "cell.")) and "Helper" not in name
    if name not in ("contrib.sequence_loss", "contrib.BeamSearchDecoder")
}
