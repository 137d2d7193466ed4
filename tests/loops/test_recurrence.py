"""Each form of linear recurrences, against a scan.

`tests/cells/test_linear_cells.py` and others compare the cells with NumPy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import ComplexState
from jaxrnn._cells import linear_recurrence as recurrence
from jaxrnn._cells.linear_recurrence import by_loop, by_tree, plus, run_steps, times

FORMS = {"loop": by_loop, "tree": by_tree}
BATCH, UNITS = 2, 3


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Force each form, for every platform and number of steps."""
    monkeypatch.setattr(recurrence, "run_steps", FORMS[request.param])


def numbers(rng, kind, *shape):
    """Random normal numbers, real or complex."""
    if kind == "real":
        return jnp.asarray(rng.normal(size=shape))
    return ComplexState(*jnp.asarray(rng.normal(size=(2, *shape))))


def data(kind, time, restarted=False):
    """`(a, x, h, resets)`, batch-major."""
    rng = np.random.default_rng(time)
    a, x = (numbers(rng, kind, BATCH, time, UNITS) for _ in range(2))
    a = jax.tree.map(lambda leaf: jnp.tanh(leaf) * 0.7, a)
    resets = rng.random((BATCH, time)) < 0.3 if restarted else None
    return a, x, numbers(rng, kind, BATCH, UNITS), resets


def time_first(tree):
    return jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree)


def scanned(a, x, h, resets):
    """The recurrence as a scan, time-major."""
    resets = (
        jnp.zeros(jax.tree.leaves(x)[0].shape[:2], bool) if resets is None else resets
    )

    def step(h, at):
        a, x, reset = at
        before = jax.tree.map(lambda v: jnp.where(reset[:, None], 0.0, v), h)
        h = plus(times(a, before), x)
        return h, h

    last, hs = jax.lax.scan(step, h, (a, x, resets))
    return hs, last


@pytest.mark.fast("tree-16-restarted-complex", "loop-7-one-real")
@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("restarted", [False, True], ids=["one", "restarted"])
@pytest.mark.parametrize("time", [1, 7, 16])
def test_values_and_derivatives_of_both_orders(kind, time, restarted):
    """The test is time-major; its loss weights all numbers differently."""
    a, x, h, resets = data(kind, time, restarted)
    args, resets = (*time_first((a, x)), h), time_first(resets)
    direction = jax.tree.map(lambda leaf: jnp.cos(3 * leaf), args)

    def loss(run, args):
        made = run(*args, resets)
        leaves = jax.tree.leaves(made)
        return sum(jnp.sum(jnp.sin(y * (i + 1))) for i, y in enumerate(leaves)), made

    def slope(run, args):
        of = lambda args: loss(run, args)[0]
        return jax.jvp(of, (args,), (direction,))[1]

    def computed(a, x, h, resets):
        return recurrence.linear_recurrence((a, resets), x, h)

    @jax.jit
    def derivatives(args):
        return [
            (
                jax.grad(functools.partial(loss, run), has_aux=True)(args),
                jax.grad(functools.partial(slope, run))(args),
            )
            for run in (computed, scanned)
        ]

    got, want = derivatives(args)
    near = lambda g, w: np.testing.assert_allclose(g, w, 1e-9, 1e-12)
    jax.tree.map(near, got, want)


@pytest.mark.fast("tree")
@pytest.mark.usefixtures("form")
def test_what_stood_before_a_reset_does_not_matter():
    """Even NaN before a reset does not reach later states or gradients."""
    a, x, h, _ = data("real", 12)
    a, x = time_first((a, x))
    resets = jnp.zeros((12, BATCH), bool).at[5].set(True)
    bad = x.at[:5].set(jnp.nan)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def after(x):
        hs, _ = recurrence.linear_recurrence((a, resets), x, h)
        return jnp.sum(jnp.sin(hs[5:])), hs[5:]

    (_, want), want_slope = after(x)
    (_, got), got_slope = after(bad)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(got_slope[5:], want_slope[5:])


@pytest.mark.fast("tree")
@pytest.mark.usefixtures("form")
def test_many_steps_of_strong_decay_are_finite():
    """Products of factors underflow, so nothing may divide by them."""
    a = jnp.full((3000, 1, 1), 1e-3, jnp.float32)
    loss = lambda a: jnp.sum(
        recurrence.linear_recurrence(
            (a, None), jnp.ones_like(a), jnp.ones((1, 1), jnp.float32)
        )[0]
    )
    value, slope = jax.jit(jax.value_and_grad(loss))(a)
    np.testing.assert_allclose(value, 3000 / (1 - 1e-3), rtol=1e-5)
    assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize("shape", [(70, 0, 3), (70, 2, 0)], ids=["rows", "units"])
def test_a_tree_of_nothing(shape):
    a = jax.ShapeDtypeStruct(shape, jnp.float64)
    h = jax.ShapeDtypeStruct(shape[1:], jnp.float64)
    hs, last = jax.eval_shape(lambda a, h: by_tree((a, None), a, h), a, h)
    assert (hs.shape, last.shape) == (shape, shape[1:])


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 1), ("cuda", 0), ("tpu", 0)])
@pytest.mark.parametrize("time", [63, 64])
def test_the_platform_chooses_the_form(platform, loops, time):
    """Only CPUs run a loop over many steps; all platforms loop over few steps."""
    a, x, h, _ = data("real", time)
    a, x = time_first((a, x))
    run = jax.jit(lambda a, x, h: run_steps((a, None), x, h))
    lowered = run.trace(a, x, h).lower(lowering_platforms=(platform,))
    assert lowered.as_text().count("stablehlo.while") == (loops if time > 63 else 1)
