"""A model of some rows that `vmap` maps over more rows is one call on all rows.

XLA's loop in float64, under the same maps, gives the expected results.
"""

import functools

import jax
import jax.numpy as jnp
import native_cases
import numpy as np
import pytest
from helpers import assert_near, gradient_of_tangent, stacked
from native_cases import CELLS, calls, on_cpus

import jaxrnn
from jaxrnn.testing._oracle import weighted_sum

pytestmark = native_cases.needs_library

# Mapped entries, rows of each entry, steps and inputs.
ENTRIES, ROWS, TIME, DEPTH = 4, 2, 5, 3
LENGTHS = jnp.asarray([[5, 0], [1, 3], [9, 2], [4, 5]], jnp.int32)
RESETS = jnp.asarray(np.random.default_rng(0).random((ENTRIES, ROWS, TIME)) < 0.3)


def data(cell, dtype=jnp.float32):
    """Parameters; inputs and states with a first axis of entries."""
    given = native_cases.data(cell, ENTRIES * ROWS, time=TIME, depth=DEPTH)
    params, *rows = jax.tree.map(lambda leaf: leaf.astype(dtype), given)
    entries = lambda leaf: leaf.reshape(ENTRIES, ROWS, *leaf.shape[1:])
    return jax.tree.map(lambda p: p / 2, params), *jax.tree.map(entries, rows)


def loss_of(cell, name, time_major=False):
    """A nonlinear loss of the outputs, the last state and the states of all steps."""
    turn = lambda x: jnp.swapaxes(x, 0, 1) if time_major and x is not None else x

    def loss(params, x, state, lengths=None, resets=None):
        options = {"time_major": time_major, "resets": turn(resets)}
        results = jaxrnn.dynamic_rnn(
            cell.bind(params),
            turn(x),
            lengths,
            state,
            return_states=True,
            implementation=name,
            **options,
        )
        return weighted_sum(jax.tree.map(jnp.sin, results))

    return loss


def over_rows(loss):
    """The sum of the losses of all entries, which share the parameters."""
    mapped = jax.vmap(loss, (None, 0, 0, 0, 0))
    return lambda *given: jnp.sum(mapped(*given, LENGTHS, RESETS))


# How a loss is mapped and differentiated.


def gradients(total, *given):
    return jax.grad(total, tuple(range(len(given))))(*given)


def of_all(loss, *given):
    return gradients(over_rows(loss), *given)


def of_each(loss, params, *rows):
    def of_one(*rows):
        *rows, lengths = rows
        return gradients(lambda *given: loss(*given, lengths), params, *rows)

    return jax.vmap(of_one)(*rows, LENGTHS)


def of_other_axes(loss, params, x, state):
    last = lambda leaf: jnp.moveaxis(leaf, 0, -1)
    mapped = jax.vmap(loss, (None, -1, -1, 1, -1), out_axes=0)
    total = lambda *given: jnp.sum(mapped(*given, LENGTHS.T, last(RESETS)))
    return gradients(total, params, last(x), jax.tree.map(last, state))


def of_seeds_of_rows(loss, params, *rows):
    mapped = jax.vmap(over_rows(loss), (0, None, None))
    total = lambda *given: jnp.sum(mapped(*given))
    return gradients(total, stacked(params, 1, -0.5, 0.7), *rows)


def on_devices(loss, *given):
    """Each device has one entry."""
    mapped = jax.vmap(loss, (None, 0, 0))
    total = lambda *given: jax.lax.psum(jnp.sum(mapped(*given)), "rows")
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = jax.P(), jax.P("rows"), jax.P("rows")
    summed = jax.shard_map(total, mesh=mesh, in_specs=specs, out_specs=jax.P())
    return gradients(summed, *given)


def hessian_product(loss, params, *rows):
    return gradient_of_tangent(lambda params: over_rows(loss)(params, *rows))(params)


FORMS = (of_all, of_each, of_other_axes, of_seeds_of_rows, on_devices, hessian_product)
FORMS = {form.__name__: form for form in FORMS}
# All forms for one cell, and the gradient of the others.
CASES = [("projected", form) for form in FORMS]
CASES += [(name, "of_all") for name in ("gru", "lstm", "rnn", "peepholes")]


@pytest.mark.fast("gru-of_all")
@pytest.mark.parametrize(("name", "form"), CASES)
def test_maps_over_rows_are_those_of_xlas_loop(name, form):
    cell = CELLS[name]

    def of(way, dtype):
        loss = loss_of(cell, way, time_major=name in ("projected", "rnn"))
        return jax.jit(functools.partial(FORMS[form], loss))(*data(cell, dtype))

    want = of("xla", jnp.float64)
    want = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), want)
    assert_near(of("native", jnp.float32), want, tolerance=2e-6)


# What a mapped gradient is compiled to.


def shapes(fn, *given):
    """The shapes of all results in the program of `fn`."""
    return {v.aval.shape for eqn in on_cpus(fn, *given) for v in eqn.outvars}


def test_a_gradient_of_shared_weights_is_not_repeated_for_each_row():
    cell = CELLS["lstm"]
    params, *rows = data(cell)
    step = functools.partial(of_seeds_of_rows, loss_of(cell, "native"))
    kernel = params["kernel"].shape
    of_rows = {
        (*seed, ENTRIES, *unit, *kernel) for seed in ((), (3,)) for unit in ((), (1,))
    }
    assert kernel in {shape[-2:] for shape in shapes(step, params, *rows)}
    assert not of_rows & shapes(step, params, *rows)
    first = (3, ENTRIES * ROWS, TIME)
    assert [c.shape[:3] for c in calls(step, params, *rows)] == [first, first]
