"""Programs as bytes: all drivers, any batch and time, derivatives, without jaxrnn."""

import subprocess
import sys

import chex
import export_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_cases import DEPTH, F32, UNITS, bound, data

import jaxrnn
from jaxrnn import decode
from jaxrnn.export import to_stablehlo


def bidirectional(x, n):
    cells = (bound(jaxrnn.GRUCell(UNITS)) for _ in range(2))
    return jaxrnn.bidirectional_dynamic_rnn(*cells, x, n, dtype=F32)


def raw(x, n):
    """`dynamic_rnn` by `raw_rnn`, which collects the outputs in a TensorArray."""
    cell = bound(jaxrnn.LSTMCell(UNITS))
    batch, time, _ = x.shape
    inputs_ta = jaxrnn.TensorArray(F32, size=time).unstack(jnp.swapaxes(x, 0, 1))
    rows = jaxrnn.TensorArray(F32, size=time, element_shape=(batch, UNITS))

    def loop_fn(t, output, state, rows_so_far):
        if output is None:
            return t >= n, inputs_ta.read(t), cell.zero_state(batch, F32), None, rows
        rows_so_far = rows_so_far.write(t - 1, output)
        return t >= n, inputs_ta.read(t), state, output, rows_so_far

    emit_ta, state, rows = jaxrnn.raw_rnn(cell, loop_fn, max_time=time)
    return emit_ta.stack(), state, rows.stack()


FUNCTIONS = {
    **export_cases.FUNCTIONS,
    "bidirectional": bidirectional,
    "raw_rnn": raw,
}


def symbolic():
    b, t = jax.export.symbolic_shape("b, t")
    return jax.ShapeDtypeStruct((b, t, DEPTH), F32), jax.ShapeDtypeStruct(
        (b,), jnp.int32
    )


def same(got, want):
    chex.assert_trees_all_close(jax.tree.leaves(got), jax.tree.leaves(want), atol=5e-6)


@pytest.mark.fast("lstm", "raw_rnn")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_batch_and_time(name):
    program = jax.export.deserialize(to_stablehlo(FUNCTIONS[name], *symbolic()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for shape in ((3, 5), (2, 7)):
        arguments = data(*shape)
        same(program.call(*arguments), jax.jit(FUNCTIONS[name])(*arguments))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_on_request(name):
    examples = data()
    program = jax.export.deserialize(
        to_stablehlo(FUNCTIONS[name], *examples, vjp_order=1)
    )

    def loss(f, x, n):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(f(x, n)))

    got = jax.grad(loss, 1)(program.call, *examples)
    same(got, jax.grad(loss, 1)(jax.jit(FUNCTIONS[name]), *examples))


DECODERS = {
    "greedy": lambda **kwargs: decode.greedy(**kwargs),
    "sample": lambda **kwargs: decode.sample(key=jax.random.key(3), **kwargs),
    "beam": lambda **kwargs: decode.beam_search(beam_width=3, **kwargs),
}


@pytest.mark.fast("greedy")
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name):
    table = jax.random.normal(jax.random.key(1), (10, UNITS), F32)
    cell = bound(jaxrnn.GRUCell(UNITS), UNITS)

    def run(state, start):
        return DECODERS[name](
            cell=cell,
            embed=lambda ids: table[ids],
            project=lambda output: output @ table.T,
            initial_state=state,
            start_ids=start,
            end_id=0,
            max_time=6,
        )

    arguments = jnp.ones((2, UNITS), F32), jnp.array([1, 2], jnp.int32)
    program = jax.export.deserialize(to_stablehlo(run, *arguments))
    got = program.call(*arguments)
    assert type(got) is tuple
    same(got, run(*arguments))


def test_standard_containers_in_and_out():
    cell = bound(jaxrnn.LSTMCell(UNITS))
    step = lambda inputs, state: {"result": cell(inputs["x"], state)}
    state = cell.zero_state(1, F32)
    program = to_stablehlo(step, {"x": jnp.ones((1, DEPTH), F32)}, state)
    call = jax.export.deserialize(program).call
    got = call({"x": jnp.ones((1, DEPTH), F32)}, tuple(state))
    assert type(got) is dict
    assert type(got["result"][1]) is tuple
    same(got, step({"x": jnp.ones((1, DEPTH), F32)}, state))


@pytest.mark.slow
def test_runs_where_jaxrnn_is_not_installed(tmp_path):
    file = tmp_path / "model"
    file.write_bytes(to_stablehlo(FUNCTIONS["lstm"], *data()))
    program = (
        "import sys; sys.modules['jaxrnn'] = None; import jax, jax.numpy as jnp;"
        f"f = jax.export.deserialize(bytearray(open({str(file)!r}, 'rb').read()));"
        "out, state = f.call(jnp.ones((3, 5, 3)), jnp.array([5, 0, 2], jnp.int32));"
        "print(out.shape, type(state).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout == "(3, 5, 4) tuple\n", done.stderr


def test_our_types_are_serialized_by_jax_itself():
    lengths, x = np.array([2, 3, 1]), np.ones((3, 3, DEPTH), np.float32)
    packed = jaxrnn.pack_sequences(x, lengths)
    cell = bound(jaxrnn.LSTMCell(UNITS))
    f = lambda packed, state: (packed, jaxrnn.packed_rnn(cell, packed, state)[1])
    arguments = packed, cell.zero_state(3, F32)
    exported = jax.export.export(jax.jit(f))(*arguments)
    program = jax.export.deserialize(exported.serialize())
    got_packed, got_state = program.call(*arguments)
    assert isinstance(got_packed, jaxrnn.PackedSequences)
    assert (got_packed.time, got_packed.time_major) == (3, False)
    assert isinstance(got_state, jaxrnn.LSTMStateTuple)
    same(got_state, f(*arguments)[1])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, jnp.ones(2)), {}, TypeError, "`f` must be a function, got 3"),
        ((abs, 3), {}, TypeError, r"`examples\[0\]` must be an array or a"),
        ((abs, {"x": "a"}), {}, TypeError, r"`examples\[0\]\['x'\]` must be"),
        ((abs, jnp.ones(2)), {"vjp_order": -1}, ValueError, "`vjp_order` must be at"),
        ((abs, jnp.ones(2)), {"vjp_order": 1.5}, TypeError, "`vjp_order` must be an"),
    ],
)
def test_refusals_name_the_argument(arguments, options, error, message):
    with pytest.raises(error, match=rf"to_stablehlo: {message}"):
        to_stablehlo(*arguments, **options)
