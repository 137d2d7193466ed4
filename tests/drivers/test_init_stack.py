"""Parameters for the layers of a bidirectional stack."""

import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from jaxrnn import DropoutWrapper, GRUCell, LSTMCell, init_stack_bidirectional

KEY = jax.random.key(0)
STEP = jax.ShapeDtypeStruct((4, 3), jnp.bfloat16)


def test_each_layer_reads_both_outputs_of_the_one_below():
    cells_fw = [LSTMCell(5, num_proj=2), DropoutWrapper(GRUCell(7), 0.9)]
    cells_bw = [GRUCell(6), LSTMCell(8)]
    fw, bw = init_stack_bidirectional(cells_fw, cells_bw, KEY, STEP)
    # The first rows of a kernel belong to the inputs, the others to the state.
    assert fw[0]["kernel"].shape == (3 + 2, 4 * 5)
    assert fw[1]["gates"]["kernel"].shape == (2 + 6 + 7, 2 * 7)
    assert bw[1]["kernel"].shape == (2 + 6 + 8, 4 * 8)
    assert {x.dtype for x in jax.tree.leaves((fw, bw))} == {jnp.dtype(jnp.bfloat16)}
    bind = lambda cells, params: [c.bind(p) for c, p in zip(cells, params, strict=True)]
    outputs, _, _ = jaxrnn.stack_bidirectional_dynamic_rnn(
        bind(cells_fw, fw),
        bind(cells_bw, bw),
        jnp.ones((4, 2, 3), jnp.bfloat16),
        dtype=jnp.bfloat16,
    )
    assert outputs.shape == (4, 2, 7 + 8)


def test_no_two_cells_start_alike():
    cells = [GRUCell(3)] * 2
    step = jax.ShapeDtypeStruct((4, 6), jnp.float32)
    fw, bw = init_stack_bidirectional(cells, cells, KEY, step)
    kernels = [tuple(p["gates"]["kernel"].ravel().tolist()) for p in fw + bw]
    assert len(set(kernels)) == 4


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (([], [], KEY), ValueError, "`cells_fw` must be a list of at least one cell"),
        (([GRUCell(3)], [GRUCell(3)] * 2, KEY), ValueError, "the same depth"),
        (([GRUCell(3)], [GRUCell(3)], 0), TypeError, "`key` must be a random key"),
        (
            ([GRUCell(3)], [lambda x, s: x], KEY),
            TypeError,
            r"`cells_bw\[0\]` must be an unbound cell, such as `jaxrnn.LSTMCell",
        ),
        (([GRUCell], [GRUCell(3)], KEY), TypeError, r"`cells_fw\[0\]` must be an unb"),
    ],
)
def test_refuses(args, error, message):
    with pytest.raises(error, match=message):
        init_stack_bidirectional(*args, STEP)
