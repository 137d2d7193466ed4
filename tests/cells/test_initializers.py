"""Initializers by part: each block of a kernel follows its definition."""

import pickle

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.nn.initializers import constant, normal, orthogonal, zeros

import jaxrnn
import jaxrnn.linen
import jaxrnn.nnx
from jaxrnn import CudnnCompatibleGRUCell, GRUCell, LSTMCell, initializers
from jaxrnn._cells.params import glorot_uniform

DEPTH, UNITS = 3, 8
BY_PART = initializers.by_part(constant(2.0), initializers.by_gate(orthogonal()))


def params_of(cell, depth=DEPTH, dtype=jnp.float32, seed=0):
    return cell.init(jax.random.key(seed), jax.ShapeDtypeStruct((2, depth), dtype))


def assert_orthogonal(block, atol=1e-5):
    block = np.asarray(block, np.float64)
    np.testing.assert_allclose(block.T @ block, np.eye(block.shape[1]), atol=atol)


def gates(kernel, blocks):
    return np.split(np.asarray(kernel), blocks, axis=-1)


def test_glorot_uniform_fills_its_range():
    cell = jaxrnn.LSTMCell(64, use_peepholes=True)
    params = cell.init(jax.random.key(0), jnp.zeros((1, 36)))
    for name, limit in (("kernel", (6 / 356) ** 0.5), ("w_f_diag", (6 / 128) ** 0.5)):
        assert 0.9 * limit < abs(params[name]).max() <= limit
        np.testing.assert_allclose(params[name].std(), limit / 3**0.5, rtol=0.25)
    assert not params["bias"].any()
    assert not np.array_equal(params["w_f_diag"], params["w_i_diag"])
    gru = jaxrnn.GRUCell(3).init(jax.random.key(0), jnp.zeros((1, 2)))
    assert (gru["gates"]["bias"] == 1).all()
    assert not gru["candidate"]["bias"].any()


def test_every_gate_of_the_state_is_orthogonal():
    kernel = params_of(LSTMCell(UNITS, initializer=BY_PART))["kernel"]
    np.testing.assert_array_equal(kernel[:DEPTH], 2)
    blocks = gates(kernel[DEPTH:], 4)
    for i, block in enumerate(blocks):
        assert_orthogonal(block)
        assert all((block != other).any() for other in blocks[:i])
    params = params_of(GRUCell(UNITS, kernel_initializer=BY_PART))
    for name, count in (("gates", 2), ("candidate", 1)):
        for block in gates(params[name]["kernel"][DEPTH:], count):
            assert_orthogonal(block)
        np.testing.assert_array_equal(params[name]["kernel"][:DEPTH], 2)
    np.testing.assert_array_equal(params["gates"]["bias"], 1)  # TensorFlow's default.


def test_products_of_the_inputs_or_of_the_state_alone():
    params = params_of(CudnnCompatibleGRUCell(UNITS, kernel_initializer=BY_PART))
    candidate = params["candidate"]
    np.testing.assert_array_equal(candidate["input_projection"]["kernel"], 2)
    assert_orthogonal(candidate["hidden_projection"]["kernel"])


def test_a_projection_and_peepholes():
    cell = LSTMCell(UNITS, True, initializer=BY_PART, num_proj=4)
    params = params_of(cell)
    assert_orthogonal(params["projection"]["kernel"])
    assert params["kernel"].shape == (DEPTH + 4, 4 * UNITS)
    bound = np.sqrt(6 / (2 * UNITS))
    assert 0 < np.abs(params["w_f_diag"]).max() <= bound


@pytest.mark.parametrize("cell", [LSTMCell(UNITS), LSTMCell(0)])
def test_empty_parts(cell):
    cell = LSTMCell(cell.num_units, initializer=BY_PART)
    for depth in (0, DEPTH):
        kernel = params_of(cell, depth)["kernel"]
        assert kernel.shape == (depth + cell.num_units, 4 * cell.num_units)


def test_gates_of_a_bias():
    by_gate = initializers.by_gate(normal())
    bias = params_of(GRUCell(UNITS, bias_initializer=by_gate))["gates"]["bias"]
    assert (bias[:UNITS] != bias[UNITS:]).all()


def test_unit_forget_bias():
    unit = initializers.unit_forget_bias()
    by_part = initializers.by_part(zeros, zeros, bias=unit)
    bias = params_of(LSTMCell(UNITS, forget_bias=0, initializer=by_part))["bias"]
    np.testing.assert_array_equal(bias, np.repeat([0, 0, 1, 0], UNITS))
    params = params_of(GRUCell(UNITS, bias_initializer=unit))
    assert not params["gates"]["bias"].any()
    # The run must equal one with `forget_bias=1`.
    stored = LSTMCell(UNITS, forget_bias=0)
    kernel = glorot_uniform(jax.random.key(0), (DEPTH + UNITS, 4 * UNITS), jnp.float32)
    x = jax.random.normal(jax.random.key(1), (2, 4, DEPTH), jnp.float32)
    run = lambda cell, bias: jaxrnn.dynamic_rnn(
        cell.bind({"kernel": kernel, "bias": bias}), x, dtype=jnp.float32
    )[0]
    np.testing.assert_allclose(
        run(stored, bias), run(LSTMCell(UNITS), jnp.zeros_like(bias)), atol=1e-6
    )


@pytest.mark.slow
def test_chrono_is_in_its_range_and_uniform_in_time():
    time, units = 50, 4096
    by_part = initializers.by_part(zeros, zeros, bias=initializers.chrono(time))
    bias = params_of(LSTMCell(units, forget_bias=0, initializer=by_part))["bias"]
    i, j, f, o = np.split(np.asarray(bias, np.float64), 4)
    np.testing.assert_array_equal(i, -f)
    np.testing.assert_array_equal([j, o], 0)
    times = np.exp(f)
    assert times.min() >= 1
    assert times.max() <= time - 1 + 1e-4
    # The mean and the variance of a uniform distribution.
    assert abs(times.mean() - time / 2) < 5 * (time - 2) / np.sqrt(12 * units)
    assert abs(times.var() / ((time - 2) ** 2 / 12) - 1) < 0.1
    gru = params_of(GRUCell(units, bias_initializer=initializers.chrono(time)))
    reset, update = np.split(gru["gates"]["bias"], 2)
    assert not reset.any()
    assert (update >= 0).all()
    assert not gru["candidate"]["bias"].any()


@pytest.mark.slow
def test_draws_of_flax():
    """The parameters have Flax's variances, orthogonal blocks and zero biases."""
    cell = LSTMCell(256, forget_bias=0, initializer=initializers.lecun_orthogonal())
    params = params_of(cell, depth=64)
    zero = lambda size: jnp.zeros((1, size), jnp.float32)
    flax = nn.OptimizedLSTMCell(256).init(
        jax.random.key(0), (zero(256), zero(256)), zero(64)
    )["params"]
    for gate, name in zip(gates(params["kernel"], 4), "igfo", strict=True):
        inputs, state = gate[:64], gate[64:]
        want = np.asarray(flax[f"i{name}"]["kernel"])
        assert abs(inputs.var() / want.var() - 1) < 0.05
        assert abs(inputs.var() * 64 - 1) < 0.05
        assert np.abs(inputs).max() < 2.3 / np.sqrt(64)  # Truncated normal.
        assert_orthogonal(state)
        assert_orthogonal(flax[f"h{name}"]["kernel"])
    assert not params["bias"].any()
    gru = CudnnCompatibleGRUCell(4, kernel_initializer=initializers.lecun_orthogonal())
    biases = [p for p in jax.tree.leaves(params_of(gru)) if p.ndim == 1]
    assert len(biases) == 3
    assert not any(bias.any() for bias in biases)


def test_a_bias_initializer_of_the_cell_comes_first():
    kernel = initializers.lecun_orthogonal()
    cell = GRUCell(4, kernel_initializer=kernel, bias_initializer=constant(3.0))
    np.testing.assert_array_equal(params_of(cell)["gates"]["bias"], 3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
def test_dtypes(dtype):
    cell = LSTMCell(UNITS, initializer=initializers.lecun_orthogonal())
    kernel = params_of(cell, dtype=dtype)["kernel"]
    assert kernel.dtype == dtype
    for block in gates(kernel[DEPTH:], 4):
        assert_orthogonal(block, atol=float(8 * jnp.finfo(dtype).eps))


def test_a_symbolic_depth():
    (depth,) = jax.export.symbolic_shape("d")
    cell = GRUCell(UNITS)
    struct = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    params = {
        name: {"kernel": struct(depth + UNITS, n * UNITS), "bias": struct(n * UNITS)}
        for name, n in (("gates", 2), ("candidate", 1))
    }
    output, _ = jax.eval_shape(cell.apply, params, struct(2, depth), struct(2, UNITS))
    assert output.shape == (2, UNITS)


def test_cells_are_values():
    make = lambda: LSTMCell(UNITS, initializer=initializers.lecun_orthogonal())
    assert make() == make() != LSTMCell(UNITS)
    again = pickle.loads(pickle.dumps(make()))
    assert again == make()
    chrono = GRUCell(UNITS, bias_initializer=initializers.chrono(9))
    assert chrono != GRUCell(UNITS, bias_initializer=initializers.chrono(10))


def test_cells_in_modules():
    cell = LSTMCell(UNITS, initializer=initializers.lecun_orthogonal())
    x = jnp.ones((2, 4, DEPTH), jnp.float32)
    params = jaxrnn.linen.RNN(cell).init(jax.random.key(0), x)["params"]["lstm_cell"]
    rnn = jaxrnn.nnx.RNN(cell, DEPTH, rngs=nnx.Rngs(0))
    for kernel in (params["kernel"], rnn.get_cells().params["kernel"]):
        for block in gates(kernel[DEPTH:], 4):
            assert_orthogonal(block)


REFUSALS = {
    "part": (
        TypeError,
        "`inputs` must be a function, got 3",
        lambda: initializers.by_part(3, zeros),
    ),
    "bias": (
        TypeError,
        "`bias` must be a function, got 3",
        lambda: initializers.by_part(zeros, zeros, 3),
    ),
    "gate": (
        TypeError,
        "`initializer` must be a function, got 'x'",
        lambda: initializers.by_gate("x"),
    ),
    "chrono": (
        ValueError,
        r"chrono: `max_time` must be in \[2, inf\], got 1",
        lambda: initializers.chrono(1),
    ),
    "chrono_kind": (
        TypeError,
        "chrono: `max_time` must be a number, got 'x'",
        lambda: initializers.chrono("x"),
    ),
    "no_gates": (
        ValueError,
        r"the number of gates must be known, got a parameter of shape \(3, 4\)",
        lambda: initializers.by_gate(zeros)(jax.random.key(0), (3, 4), jnp.float32),
    ),
    "no_parts": (
        ValueError,
        r"a kernel must have `input_rows`.* got a kernel of shape \(3, 4\)",
        lambda: BY_PART(jax.random.key(0), (3, 4), jnp.float32),
    ),
    "no_bias": (
        ValueError,
        r"1, 2 or 4 blocks, got None in a bias of shape \(4,\)",
        lambda: initializers.chrono(5)(jax.random.key(0), (4,), jnp.float32),
    ),
    "chrono_of_a_kernel": (
        ValueError,
        r"a bias must be a vector, .* \(11, 32\).*by_part",
        lambda: params_of(LSTMCell(UNITS, initializer=initializers.chrono(5))),
    ),
    "forget_bias_of_a_kernel": (
        ValueError,  # The kernel has 4 + 8 rows, which divide into four.
        r"a bias must be a vector, .* \(12, 32\).*by_part",
        lambda: params_of(
            LSTMCell(UNITS, initializer=initializers.unit_forget_bias()), depth=4
        ),
    ),
}


@pytest.mark.parametrize(("error", "words", "call"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(error, words, call):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "initializer",
    [initializers.lecun_orthogonal, initializers.by_gate(orthogonal)],
    ids=["ours", "of_gates"],
)
def test_an_error_names_the_parameter_of_an_uncalled_initializer(initializer):
    with pytest.raises(TypeError) as caught:
        params_of(LSTMCell(UNITS, initializer=initializer))
    (note,) = caught.value.__notes__
    assert "the initializer of `params['kernel']`, called with (key, (11, 32)," in note


def test_a_function_is_suggested_to_be_called_only_where_one_was_made():
    three = lambda key, shape, dtype: jnp.ones(3, dtype)
    with pytest.raises(TypeError) as caught:
        params_of(LSTMCell(UNITS, initializer=three))
    assert str(caught.value).endswith("must return an array (11, 32), got float32[3].")


def test_a_repr_names_functions_of_this_module():
    chosen = initializers.by_part(
        jax.nn.initializers.zeros, initializers.by_gate(jax.nn.initializers.ones)
    )
    assert repr(chosen) == "by_part(zeros, by_gate(ones), None)"
    assert repr(initializers.chrono(9)) == "chrono(9.0)"
    assert repr(initializers.unit_forget_bias()) == "unit_forget_bias()"
    with pytest.raises(TypeError, match="by_gate: `initializer` must be a function"):
        initializers.by_gate(3)
