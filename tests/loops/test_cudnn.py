"""The code around cuDNN's LSTM, with JAX's reference instead of cuDNN."""

import functools
import re
from types import SimpleNamespace

import chex
import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import differentiated, drawn, eqns, usual_promotion
from jax.experimental import rnn

import jaxrnn
import jaxrnn.linen
from jaxrnn import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell
from jaxrnn._loops import cudnn
from jaxrnn.memory import Keep, Offload, Recompute
from jaxrnn.testing._oracle import weighted_sum

assert_near = functools.partial(helpers.assert_near, tolerance=1e-5)
F32, BF16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
UNITS, DEPTH, TIME = 4, 3, 6
# Zero steps, one step, some, all, and more than all.
LENGTHS = jnp.asarray([0, 1, 4, 6, 60], jnp.int32)


# The replacement is as strict as cuDNN's documentation: if cuDNN does not support the
# arguments, all results are NaN.


def reference(weights, x, h, c, lengths):
    """JAX's reference implementation of cuDNN's LSTM: `(y, h, c)`."""
    sizes = x.shape[-1], h.shape[-1], 1, False
    with usual_promotion():
        y, h, c = rnn.lstm_ref(
            x,
            h[None],
            c[None],
            *rnn.unpack_lstm_weights(weights, *sizes),
            lengths,
            *sizes[:3],
            0.0,
            False,
        )
    return y, h[0], c[0]


class Reference:
    """A replacement for cuDNN, which records the input shapes of its calls."""

    def __init__(self):
        self.forwards, self.backwards = [], []

    def forward(self, precision, weights, x, h, c, lengths):
        del precision
        self.forwards.append(x.shape)
        given = weights, x, h, c, lengths
        assert {v.dtype for v in given} == {F32, jnp.dtype(jnp.int32)}
        fits = jnp.all((lengths >= 1) & (lengths <= x.shape[1]))
        finite = jnp.stack([jnp.all(jnp.isfinite(v)) for v in given])
        return poison(fits & jnp.all(finite), reference(*given)), packed(given)

    def backward(self, precision, given, y, reserve, cts):
        del precision
        (_, x, _, _, lengths), (ct_y, _, _) = given, cts
        self.backwards.append(x.shape)
        (again, *_), pull_back = jax.vjp(lambda *v: reference(*v, lengths), *given[:-1])
        steps = jnp.arange(x.shape[1], dtype=jnp.int32)
        after = (steps[None, :] >= lengths[:, None])[..., None]
        is_quiet = jnp.all(jnp.where(after, ct_y, 0) == 0)
        same = jnp.all(packed(given) == reserve)
        # The backward pass does not read a row's last output, so it may differ.
        off_y = jnp.where(after[:, 1:], 0, (y - again)[:, :-1])
        same_y = jnp.all(jnp.abs(off_y) < 1e-5)
        ct_weights, ct_x, *ct_state = pull_back(cts)
        # cuDNN's documentation does not specify the results for padding.
        cotangents = ct_weights, jnp.where(after, jnp.nan, ct_x), *ct_state
        return poison(is_quiet & same & same_y, cotangents)


def packed(given):
    return jnp.concatenate([v.astype(F32).reshape(-1) for v in given])


def poison(is_well, tree):
    return jax.tree.map(lambda v: jnp.where(is_well, v, jnp.nan), tree)


@pytest.fixture
def with_gpu(monkeypatch):
    """Allow this process to trace calls of cuDNN, with empty caches."""
    jax.clear_caches()
    monkeypatch.setattr(cudnn, "why_not_here", lambda: None)
    yield
    jax.clear_caches()


@pytest.fixture
def stand_in(with_gpu, monkeypatch):
    """The replacement for calls of cuDNN."""
    return stood_in(monkeypatch)


def stood_in(monkeypatch):
    jax.clear_caches()
    calls = Reference()
    monkeypatch.setattr(cudnn, "forward", calls.forward)
    monkeypatch.setattr(cudnn, "backward", calls.backward)
    return calls


@pytest.fixture
def sized(with_gpu, monkeypatch):
    """JAX's primitives, with constant buffer sizes instead of cuDNN's."""
    name = "compute_rnn_workspace_reserve_space_sizes"
    monkeypatch.setattr(rnn.gpu_rnn, name, lambda *_: (100, 1000), raising=False)


# Values and gradients.


def data(cell, batch=5, time=TIME, depth=DEPTH, dtype=F32, seed=0):
    """Random `(params, x, state)`."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) * 0.7, dtype)
    x = draw(batch, time, depth)
    params = drawn(cell, x[:, 0])
    params = jax.tree.map(lambda p: draw(*p.shape), params)
    state = jax.tree.map(lambda s: draw(*s.shape), cell.zero_state(batch, dtype))
    return params, x, state


def run(cell, implementation, params, x, state, lengths=LENGTHS, **kwargs):
    return jaxrnn.dynamic_rnn(
        cell.bind(params), x, lengths, state, implementation=implementation, **kwargs
    )


def everything(cell, implementation, params, x, state, lengths=LENGTHS, **kwargs):
    """The outputs, the final state, and gradients by parameters, inputs and state."""

    return differentiated(
        lambda params, x, state: run(
            cell, implementation, params, x, state, lengths, **kwargs
        ),
        params,
        x,
        state,
    )


CELLS = {
    "basic": BasicLSTMCell(UNITS),
    "basic_joined": BasicLSTMCell(UNITS, forget_bias=0.3, state_is_tuple=False),
    "lstm": LSTMCell(UNITS, activation="tanh"),
    "lstm_joined": LSTMCell(UNITS, forget_bias=0, state_is_tuple=False),
    "lstm_biased": LSTMCell(UNITS, forget_bias=0.3, activation=jnp.tanh),
    # Without a projection, nothing is clipped.
    "lstm_proj_clip": LSTMCell(UNITS, proj_clip=0.01),
}


@pytest.mark.fast("basic")
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients_are_those_of_the_loop(stand_in, name):
    cell = CELLS[name]
    given = data(cell)
    assert_near(
        everything(cell, "cudnn", *given),
        everything(cell, "xla", *given),
    )
    assert set(stand_in.forwards) == set(stand_in.backwards) == {(5, TIME, DEPTH)}


@pytest.mark.fast("True")
@pytest.mark.parametrize("is_jitted", [True, False])
def test_values_alone(stand_in, is_jitted):
    cell = CELLS["lstm"]
    given = data(cell)
    of = lambda name: lambda *given: run(cell, name, *given)
    call = jax.jit(of("cudnn")) if is_jitted else of("cudnn")
    assert_near(call(*given), of("xla")(*given))
    assert stand_in.forwards
    assert not stand_in.backwards


def test_rows_of_length_0_keep_their_state_and_its_gradient(stand_in):
    cell = CELLS["basic"]
    params, x, state = data(cell)
    (outputs, last), (_, ct_x, _) = everything(cell, "cudnn", params, x, state)
    assert jnp.all(outputs[0] == 0)
    assert jnp.all(last.c[0] == state.c[0])
    assert jnp.all(last.h[0] == state.h[0])
    assert jnp.all(ct_x[0] == 0)
    # In the first row, only the final state depends on the initial state.
    of_last = lambda state: weighted_sum(run(cell, "cudnn", params, x, state)[1])
    ct_state = jax.jit(jax.grad(of_last))(state)
    other = jax.grad(lambda state: weighted_sum(state))(state)
    assert_near((ct_state.c[0], ct_state.h[0]), (other.c[0], other.h[0]), tolerance=0)
    later = jax.tree.map(lambda s: s[1:], state)
    assert_near(outputs[1:], run(cell, "xla", params, x[1:], later, LENGTHS[1:])[0])


@pytest.mark.fast("nan")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_has_no_effect(stand_in, bad):
    cell = CELLS["lstm"]
    params, x, state = data(cell)
    dead = np.arange(TIME) >= np.asarray(LENGTHS)[:, None]
    bad_x = jnp.where(dead[..., None], bad, x)
    none = (LENGTHS == 0)[:, None]
    bad_state = jax.tree.map(lambda s: jnp.where(none, bad, s), state)
    clean = everything(cell, "xla", params, x, state)
    (outputs, last), gradients = everything(cell, "cudnn", params, bad_x, bad_state)
    assert_near((outputs, gradients[:2]), (clean[0][0], clean[1][:2]))
    assert_near(jax.tree.map(lambda s: s[1:], (last, gradients[2])), tails(clean))
    for leaf in jax.tree.leaves(last):
        np.testing.assert_array_equal(leaf[0], np.full(UNITS, bad, np.float32))


def tails(made):
    """Final states, and initial states' gradients, of all rows except the first."""
    (_, last), (_, _, ct_state) = made
    return jax.tree.map(lambda s: s[1:], (last, ct_state))


# Programs around the call.


def loss(name):
    """A nonlinear loss."""
    cell = CELLS["lstm_biased"]
    _, _, state = data(cell)
    sum_of_sines = lambda results: weighted_sum(jax.tree.map(jnp.sin, results))
    return lambda params, x: sum_of_sines(run(cell, name, params, x, state))


def one_row_and_step(name):
    cell = LSTMCell(1)
    given = data(cell, 1, 1, 1)
    lengths = [jnp.asarray([n], jnp.int32) for n in (0, 1)]
    return [everything(cell, name, *given, n) for n in lengths]


def whole_rows_time_first(name):
    cell = CELLS["basic"]
    params, x, state = data(cell)
    x = jnp.swapaxes(x, 0, 1)
    return everything(cell, name, params, x, state, None, time_major=True)


def cotangents_of_padding(name):
    cell = CELLS["lstm"]
    dead = (np.arange(TIME) >= np.asarray(LENGTHS)[:, None])[..., None]

    @jax.jit
    def grads(*given):
        call = lambda *given: run(cell, name, *given)
        (outputs, last), pull_back = jax.vjp(call, *given)
        return pull_back((jnp.where(dead, jnp.nan, outputs), last))

    return grads(*data(cell))


def layers(name):
    cell = jaxrnn.MultiRNNCell([LSTMCell(UNITS), BasicLSTMCell(2, forget_bias=0)])
    return everything(cell, name, *data(cell))


def rematerialized(name):
    params, x, _ = data(CELLS["lstm_biased"])
    return jax.jit(jax.grad(jax.checkpoint(loss(name)), (0, 1)))(params, x)


def mapped_twice(name):
    params, x, state = data(CELLS["basic"])
    xs, lengths = jnp.stack([x, -x]), jnp.stack([LENGTHS, LENGTHS[::-1]])
    call = lambda x, n: run(CELLS["basic"], name, params, x, state, n)
    call = jax.vmap(jax.vmap(call, (0, None)), (None, 0))
    return jax.jit(call)(xs, lengths)


def mapped_gradients(name):
    call = jax.value_and_grad(
        lambda *given: weighted_sum(run(CELLS["basic"], name, *given)), (0, 1, 2)
    )
    wide = jax.tree.map(lambda v: jnp.stack([v, -v, 2 * v]), data(CELLS["basic"]))
    return jax.jit(jax.vmap(call))(*wide)


def gradient_of_mapped_rows(name):
    params, x, state = data(CELLS["basic"])
    one = lambda p, x: weighted_sum(run(CELLS["basic"], name, p, x, state))
    xs = jnp.stack([x, 2 * x])
    total = lambda p: jnp.sum(jax.vmap(one, (None, 0))(p, xs))
    return jax.jit(jax.value_and_grad(total))(params)


def over_four_devices(name):
    step, params = over_devices(name)
    return step(params)


def in_windows(name):
    cell = CELLS["lstm"]
    return everything(cell, name, *data(cell), swap_memory=Recompute(4))


PROGRAMS = (
    one_row_and_step,
    whole_rows_time_first,
    cotangents_of_padding,
    layers,
    rematerialized,
    mapped_twice,
    mapped_gradients,
    gradient_of_mapped_rows,
    over_four_devices,
    in_windows,
)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_programs_give_what_the_loop_gives(stand_in, program):
    assert_near(program("cudnn"), program("xla"))
    assert stand_in.forwards


def test_forward_mode_is_an_error_of_jax(stand_in):
    params, x, _ = data(CELLS["lstm_biased"])
    of = lambda params: loss("cudnn")(params, x)
    reason = r"can't apply forward-mode autodiff \(jvp\) to a custom_vjp function"
    for call in (of, jax.jit(of)):
        with pytest.raises(TypeError, match=reason):
            jax.jvp(call, (params,), (params,))


def test_second_derivatives_are_an_error_of_jax(sized):
    params, x, _ = data(CELLS["lstm_biased"])
    twice = jax.grad(lambda p: weighted_sum(jax.grad(loss("cudnn"))(p, x)))
    with pytest.raises(NotImplementedError, match=r"rule for 'rnn_.*' not implemented"):
        jax.eval_shape(twice, params)


@pytest.mark.slow
@pytest.mark.parametrize("is_ragged", [True, False])
def test_types_over_devices(sized, is_ragged, monkeypatch):
    """Types vary over the same devices as with XLA's loop, with as many sums."""

    def summed():
        step, params = over_devices("cudnn", is_ragged)
        made = jax.make_jaxpr(step)(params)
        names = [e.primitive.name for e in eqns(made.jaxpr)]
        return made, sum(name.startswith("psum") for name in names)

    made, count = summed()
    there, back = calls(made)
    assert (there.primitive.name, back.primitive.name) == ("rnn_fwd", "rnn_bwd")
    assert there.invars[0].aval.shape == (2, TIME, DEPTH)
    stood_in(monkeypatch)
    assert count == summed()[1] > 0


def over_devices(name, is_ragged=True):
    """A loss of rows on four devices, and its gradient."""
    cell = CELLS["lstm"]
    params, x, state = data(cell, 8)
    lengths = jnp.asarray([0, 1, 2, 3, 4, 5, 6, 9], jnp.int32)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    whole, rows = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("rows")

    def total(params, x, state, lengths):
        lengths = lengths if is_ragged else None
        made = run(cell, name, params, x, state, lengths)
        return jax.lax.psum(weighted_sum(made), "rows")

    specs = whole, rows, rows, rows
    summed = jax.shard_map(total, mesh=mesh, in_specs=specs, out_specs=whole)
    step = jax.value_and_grad(lambda params: summed(params, x, state, lengths))
    return jax.jit(step), params


# The arguments of the calls.


def test_weights_are_in_cudnns_layout():
    """Compare the gates by their names in both libraries' documentation."""
    cell = BasicLSTMCell(UNITS, forget_bias=0.25)
    params, *_ = data(cell)
    flat = cudnn.flat_weights(cell, params, DEPTH)
    assert flat.shape == (rnn.get_num_params_in_lstm(DEPTH, UNITS, 1, False),)
    (w_ih,), (w_hh,), (b_ih,), (b_hh,) = (
        found.values()
        for found in rnn.unpack_lstm_weights(flat, DEPTH, UNITS, 1, False)
    )
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    for block, name in enumerate("ifgo"):  # cuDNN's g is TensorFlow's j.
        here = slice(block * UNITS, (block + 1) * UNITS)
        column = "ijfo".index(name.replace("g", "j")) * UNITS
        there = slice(column, column + UNITS)
        np.testing.assert_array_equal(w_ih[here], kernel[:DEPTH, there].T)
        np.testing.assert_array_equal(w_hh[here], kernel[DEPTH:, there].T)
        added = np.float32(0.25 if name == "f" else 0)
        np.testing.assert_array_equal(b_ih[here], bias[there] + added)
        np.testing.assert_array_equal(b_hh[here], np.zeros(UNITS))


def test_arguments_are_in_the_order_of_the_primitives(with_gpu, monkeypatch):
    """Arguments of equal shape could be swapped without an error."""
    squeeze, stand_in = lambda v: v[0], Reference()

    def bind_forward(x, h_0, c_0, w, lengths, **static):
        del static
        given = w, x, *map(squeeze, (h_0, c_0)), lengths
        (y, h, c), reserve = stand_in.forward(None, *given)
        return y, h[None], c[None], reserve

    def bind_backward(dy, dh_n, dc_n, x, h_0, c_0, w, y, reserve, lengths, **static):
        del static
        given = w, x, *map(squeeze, (h_0, c_0)), lengths
        cotangents = dy, *map(squeeze, (dh_n, dc_n))
        dw, dx, dh, dc = stand_in.backward(None, given, y, reserve, cotangents)
        return dx, dh[None], dc[None], dw

    monkeypatch.setattr(rnn, "rnn_fwd_p", SimpleNamespace(bind=bind_forward))
    monkeypatch.setattr(rnn, "rnn_bwd_p", SimpleNamespace(bind=bind_backward))
    cell = CELLS["basic"]
    given = data(cell)
    got = everything(cell, "cudnn", *given)
    assert_near(got, everything(cell, "xla", *given))
    assert stand_in.forwards
    assert stand_in.backwards


def calls(jaxpr):
    """The equations that call cuDNN, in order."""
    return [e for e in eqns(jaxpr.jaxpr) if e.primitive.name.startswith("rnn_")]


@pytest.mark.fast("True")
@pytest.mark.parametrize("time_major", [False, True])
def test_what_the_primitives_are_given(sized, time_major):
    cell = CELLS["basic"]
    params, x, state = data(cell)
    x = jnp.swapaxes(x, 0, 1) if time_major else x
    step = lambda *given: everything(cell, "cudnn", *given, time_major=time_major)
    made = jax.make_jaxpr(step)(params, x, state)
    there, back = calls(made)
    count = 4 * UNITS * (DEPTH + UNITS + 2)
    # The documented arguments of `lstm_fwd` and `rnn_bwd`.
    xs, ys, one = f"5,{TIME},{DEPTH}", f"5,{TIME},{UNITS}", f"1,5,{UNITS}"
    given = f"{xs} {one} {one} {count}"
    assert shapes(there.invars) == f"{given} 5i"
    assert shapes(there.outvars) == f"{ys} {one} {one} 1000"
    assert shapes(back.invars) == f"{ys} {one} {one} {given} {ys} 1000 5i"
    assert shapes(back.outvars) == given
    assert there.params == back.params
    assert there.params == {
        "input_size": DEPTH,
        "hidden_size": UNITS,
        "num_layers": 1,
        "dropout": 0.0,
        "bidirectional": False,
        "cudnn_allow_tf32": True,
    }


def shapes(variables):
    marks = {F32: "", jnp.dtype(jnp.int32): "i"}
    shape = lambda aval: ",".join(map(str, aval.shape)) + marks[aval.dtype]
    return " ".join(shape(v.aval) for v in variables)


@pytest.mark.skipif(not rnn.gpu_rnn._cuda_rnn, reason="JAX has no CUDA plugin.")
def test_lowers_for_a_gpu(sized):
    """The test needs JAX's CUDA plugin, `pip install jax[cuda12]`, but no GPU."""
    cell = CELLS["basic"]
    step = jax.jit(lambda *given: everything(cell, "cudnn", *given))
    text = step.trace(*data(cell)).lower(lowering_platforms=("cuda",)).as_text()
    found = re.findall(r"custom_call @(cudnn\w+)", text)
    assert sorted(found) == ["cudnn_rnn_bwd_ffi", "cudnn_rnn_ffi"]


TF32 = {
    None: True,
    "default": True,
    "bfloat16": True,
    "tensorfloat32": True,
    "high": True,
    "TF32_TF32_F32": True,
    "highest": False,
    "float32": False,
    "F32_F32_F32": False,
}


@pytest.mark.slow
@pytest.mark.parametrize("named", TF32, ids=str)
def test_precision_is_that_of_the_call(sized, named):
    cell = CELLS["basic"]
    params, x, state = data(cell)

    def loss(params):
        with jax.default_matmul_precision(named):
            return weighted_sum(run(cell, "cudnn", params, x, state))

    made = calls(jax.make_jaxpr(jax.grad(loss))(params))
    assert [e.params["cudnn_allow_tf32"] for e in made] == [TF32[named]] * 2


def test_nothing_but_cudnn_runs_for_a_gradient(sized):
    cell = CELLS["basic"]
    step = lambda *given: everything(cell, "cudnn", *given)
    names = {e.primitive.name for e in eqns(jax.make_jaxpr(step)(*data(cell)).jaxpr)}
    assert {"rnn_fwd", "rnn_bwd"} < names
    assert not {"while", "scan"} & names


@pytest.mark.fast("Recompute(3)-2")
@pytest.mark.parametrize(
    ("strategy", "forwards"), [(Offload(Keep(), 3), 1), (Recompute(3), 2)], ids=str
)
def test_what_goes_to_the_host_is_not_computed_again(sized, strategy, forwards):
    cell = CELLS["basic"]
    given = data(cell)
    step = lambda *given: everything(cell, "cudnn", *given, swap_memory=strategy)
    made = calls(jax.make_jaxpr(step)(*given))
    names = [e.primitive.name for e in made]
    assert names == ["rnn_fwd"] * forwards + ["rnn_bwd"]


def test_parameters_are_made_without_a_gpu():
    rnn = jaxrnn.linen.RNN(LSTMCell(UNITS), implementation="cudnn")
    x = jnp.ones((2, TIME, DEPTH), F32)
    made = rnn.init(jax.random.key(0), x)["params"]
    plain = jaxrnn.linen.RNN(LSTMCell(UNITS)).init(jax.random.key(0), x)["params"]
    chex.assert_trees_all_equal(made, plain)


# Messages.

CANNOT = (
    r"`implementation` 'cudnn' cannot run this cell on these sequences: {}\. Leave "
)
CANNOT += "it out for XLA's loop"


class Derived(LSTMCell):
    """A subclass of `LSTMCell`, whose functions may differ."""


def swish_like(x):
    return x * jax.nn.sigmoid(x)


REFUSED = {
    "gru": (GRUCell(3), {}, "it supports only plain LSTMs with tanh, not GRUCell"),
    "rnn": (
        BasicRNNCell(3),
        {},
        "it supports only plain LSTMs with tanh, not BasicRNNCell",
    ),
    "derived": (Derived(3), {}, "it supports only plain LSTMs with tanh, not Derived"),
    "activation": (
        BasicLSTMCell(3, activation="relu"),
        {},
        "it supports only plain LSTMs with tanh, but this cell uses relu",
    ),
    "function": (
        LSTMCell(3, activation=swish_like),
        {},
        "it supports only plain LSTMs with tanh, but this cell uses swish_like",
    ),
    "peepholes": (
        LSTMCell(3, use_peepholes=True),
        {},
        "it supports only plain LSTMs with tanh, but this one has peepholes",
    ),
    "cell_clip": (
        LSTMCell(3, cell_clip=1.0),
        {},
        "it supports only plain LSTMs with tanh, but this one has a `cell_clip`",
    ),
    "projection": (
        LSTMCell(3, num_proj=2),
        {},
        "it supports only plain LSTMs with tanh, but this one has a projection",
    ),
    "float64": (
        LSTMCell(3),
        {"dtype": jnp.float64},
        "it supports only float32, got float64",
    ),
    "bfloat16": (
        LSTMCell(3),
        {"dtype": BF16},
        "it supports only float32, got bfloat16",
    ),
    "no_units": (
        LSTMCell(0),
        {},
        "there are no steps, no rows, no inputs, or no units",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    cell, sizes, reason = REFUSED[name]
    given = data(cell, **({"batch": 2} | sizes))
    with pytest.raises(ValueError, match=CANNOT.format(re.escape(reason))):
        run(cell, "cudnn", *given, lengths=None)


def test_more_steps_than_cudnn_takes(stand_in):
    cell = LSTMCell(1)

    def trace(time):
        params, _, state = data(cell, 1, 1, 1)
        x = jax.ShapeDtypeStruct((1, time, 1), F32)
        call = lambda x: run(cell, "cudnn", params, x, state, None)
        return jax.eval_shape(call, x)

    assert trace(65_535)[0].shape == (1, 65_535, 1)
    reason = "it supports at most 65535 steps, got 65536"
    with pytest.raises(ValueError, match=CANNOT.format(reason)):
        trace(65_536)


def test_a_memory_of_another_dtype():
    cell = LSTMCell(3)
    params, x, state = data(cell, 2, dtype=BF16)
    state = state._replace(c=state.c.astype(F32))
    reason = "it supports only float32, got bfloat16, float32"
    with pytest.raises(ValueError, match=CANNOT.format(reason)):
        run(cell, "cudnn", params, x, state, None, dtype=BF16)


def test_symbolic_sizes():
    cell = LSTMCell(3)
    params, _, _ = data(cell)
    batch, time = jax.export.symbolic_shape("b, t")
    for shape, reason in (
        ((batch, 4, DEPTH), "the number of rows is symbolic"),
        ((2, time, DEPTH), "the number of steps is symbolic"),
    ):
        x = jax.ShapeDtypeStruct(shape, F32)
        call = lambda x: jaxrnn.dynamic_rnn(
            cell.bind(params), x, dtype=F32, implementation="cudnn"
        )
        with pytest.raises(ValueError, match=CANNOT.format(reason)):
            jax.eval_shape(call, x)


def has_gpu():
    return any(device.platform == "gpu" for device in jax.devices())


@pytest.mark.skipif(has_gpu(), reason="This machine has a GPU.")
def test_without_a_gpu():
    cell = LSTMCell(3)
    reason = "JAX asks cuDNN for sizes at trace time, but finds no NVIDIA"
    with pytest.raises(ValueError, match=CANNOT.format(f"{reason} GPU here")):
        run(cell, "cudnn", *data(cell))
    # A reason that holds on any machine comes first.
    with pytest.raises(ValueError, match="with tanh, not GRUCell"):
        run(GRUCell(3), "cudnn", *data(GRUCell(3)))
