"""Cells are values: different cells are unequal, and equal cells compile once."""

import copy
import dataclasses
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES
from helpers import bound
from jax.nn import initializers as init

import jaxrnn
from jaxrnn import GRUCell, LSTMCell
from jaxrnn.initializers import by_gate, by_part, chrono

X = np.ones((2, 4, 3), np.float32)
F32 = jnp.float32


pickled = lambda cell: pickle.loads(pickle.dumps(cell))
PICKLED = CASES["gru_sigmoid"].cell, GRUCell(3, activation=jnp.tanh)
PICKLED += tuple(jaxrnn.DeviceWrapper(GRUCell(3), jax.devices()[i]) for i in (0, -1))


@pytest.mark.parametrize("copied", [copy.deepcopy, dataclasses.replace, pickled])
def test_copies_are_equal(copied):
    for cell in (*(case.cell for case in CASES.values()), *PICKLED):
        twin = copied(cell)
        assert twin == cell
        assert hash(twin) == hash(cell)


def test_what_shapes_nothing_does_not_count():
    assert LSTMCell(3, reuse=True, num_unit_shards=2) == LSTMCell(3)
    assert GRUCell(3, activation=jnp.tanh) == GRUCell(3, activation="tanh")
    assert GRUCell(np.int64(3)) == GRUCell(3)
    assert GRUCell(3) != GRUCell(3, dtype="float64")
    assert LSTMCell(3) != jaxrnn.BasicLSTMCell(3)
    assert LSTMCell(3, forget_bias=0.0) != LSTMCell(3, forget_bias=1.0)


# Each draws other values than the others, or in another dtype.
INITIALIZERS = {
    "glorot": lambda: init.glorot_uniform(),
    "axes": lambda: init.glorot_uniform(in_axis=-1, out_axis=-2),
    "0.0": lambda: init.constant(0.0),
    "-0.0": lambda: init.constant(-0.0),
    "0": lambda: init.constant(0),
    "by_part": lambda: by_part(init.lecun_normal(), by_gate(init.orthogonal())),
    "by_part scaled": lambda: by_part(init.lecun_normal(), by_gate(init.orthogonal(2))),
    "chrono": lambda: chrono(3),
    "chrono 4": lambda: chrono(4),
}


def test_initializers_are_compared_by_what_they_draw():
    """JAX's are new functions in each call."""
    one, other = (
        [GRUCell(3, kernel_initializer=make()) for make in INITIALIZERS.values()]
        for _ in range(2)
    )
    for cell, twin in zip(one, other, strict=True):
        assert cell == twin
        assert hash(cell) == hash(twin)
    assert all(a != b for a, b in itertools.combinations(one, 2))


def closure(value):
    """An initializer of a user, who may change `value` later."""
    return lambda key, shape, dtype: jnp.full(shape, value, dtype)


def test_closures_that_may_change_are_compared_by_identity():
    array = np.ones(6, np.float32)
    for make in (lambda: closure(2.0), lambda: init.constant(array)):
        initializer = make()
        cell = GRUCell(3, kernel_initializer=initializer)
        assert cell == GRUCell(3, kernel_initializer=initializer)
        assert hash(cell) == hash(GRUCell(3, kernel_initializer=initializer))
        assert cell != GRUCell(3, kernel_initializer=make())


def test_a_program_draws_with_the_initializers_of_its_cell():
    @jax.jit
    def draw(gru):
        return gru.cell.init(jax.random.key(0), X[:, 0])["gates"]["kernel"]

    for value in (2.0, 3.0, 2.0):
        gru = GRUCell(3, kernel_initializer=init.constant(value))
        kernel = draw(gru.bind(gru.init(jax.random.key(0), X[:, 0])))
        np.testing.assert_array_equal(kernel, np.full((6, 6), value))


class Plain(jaxrnn.RNNCell):
    """A cell as TensorFlow users write it, which is not a dataclass."""

    state_size = output_size = 3

    def __init__(self, scale):
        self.scale = scale

    def init(self, key, inputs, dtype=None):
        return {}

    def apply(self, params, inputs, state, key=None):
        return state + self.scale * inputs, state + self.scale * inputs


def test_a_class_that_is_no_dataclass_is_a_value_too():
    assert Plain(1.0) == Plain(1.0) != Plain(2.0)
    assert hash(Plain(1.0)) == hash(Plain(1.0))
    for scale in (1.0, 2.0):
        _, state = jaxrnn.dynamic_rnn(Plain(scale).bind({}), X, dtype=F32)
        np.testing.assert_array_equal(state, 4 * scale)


def test_deep_copies_do_not_share_parameters():
    cell = GRUCell(3)
    twins = jaxrnn.MultiRNNCell([copy.deepcopy(cell) for _ in range(2)])
    assert list(twins.init(jax.random.key(0), X[:, 0])) == ["cell_0", "cell_1"]
    shared = copy.deepcopy([jaxrnn.MultiRNNCell([cell, cell]), cell])
    assert list(shared[0].init(jax.random.key(0), X[:, 0])) == ["cell_0"]


def test_what_cells_show():
    assert repr(Plain(2.0)) == "Plain(scale=2.0)"
    assert repr(LSTMCell(3, cell_clip=2)).endswith("cell_clip=2.0, activation=tanh)")
    initializer = by_part(init.zeros, chrono(9))
    assert repr(initializer) == "by_part(zeros, chrono(9.0))"
    gru = bound(GRUCell(3), dtype=F32)  # It shows shapes, not numbers.
    assert "'kernel': float32[6, 6]" in repr(gru)
    assert gru != GRUCell(3).bind(gru.params)  # By identity, as for arrays.


@pytest.mark.slow
def test_a_bound_cell_goes_through_optax():
    gru, optimizer = bound(GRUCell(3), dtype=F32), optax.adam(0.1)
    loss = lambda gru: (jaxrnn.dynamic_rnn(gru, X, dtype=F32)[0] ** 2).mean()

    @jax.jit
    def trained(gru):
        updates, _ = optimizer.update(jax.grad(loss)(gru), optimizer.init(gru))
        moved = optax.apply_updates(gru, updates)
        return moved, optax.incremental_update(moved, gru, 0.5)

    with jax.numpy_dtype_promotion("standard"):  # optax relies on promotion.
        moved, mixed = trained(gru)
    assert loss(moved) < loss(gru)
    assert mixed.cell == gru.cell
