"""The operation with one program on CPUs and another on other platforms."""

import importlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn._base import jax_internals
from jaxrnn._loops.affine.native.operation import native_or_xla

X = jnp.arange(3.0)


def test_a_later_jax_may_lack_what_native_loops_use(monkeypatch):
    """`import jaxrnn` works; tests/native/ tests that XLA's loop runs."""
    assert jax_internals.MISSING is None
    module = importlib.import_module("jax.interpreters.mlir")
    monkeypatch.delattr(module, "lower_fun")
    missing = runpy.run_path(jax_internals.__file__)["MISSING"]
    assert "cannot import name 'lower_fun'" in missing


def test_the_error_of_a_later_jax_says_what_to_install(monkeypatch):
    module = importlib.import_module("jax.extend.random")
    monkeypatch.delattr(module, "define_prng_impl")
    wanted = "0.12.*'define_prng_impl'.*pip install \"jax<0.13\""
    with pytest.raises(ImportError, match=wanted):
        runpy.run_path(jax_internals.__file__)


def tenfold(pair, y):
    return {"z": 10 * pair[0] + pair[1] + y}


def doubled(pair, y):
    return {"z": 2 * pair[0] + pair[1] + y}


def run(x):
    """Reveal where it runs: its programs deliberately have different results."""
    return native_or_xla(tenfold, doubled, (x, x), jnp.float64(1.0))["z"]


def traced_nowhere(*_):
    raise ZeroDivisionError


def times_n(x):
    """The number is one of Python."""
    return native_or_xla(lambda x, n: n * x, lambda x, n: x, x, 2)


@pytest.mark.parametrize(("step", "want"), [(run, 11 * X + 1), (times_n, 2 * X)])
def test_on_a_cpu(step, want):
    with jax.disable_jit():
        np.testing.assert_array_equal(step(X), want)
    np.testing.assert_array_equal(step(X), want)
    np.testing.assert_array_equal(jax.jit(step)(X), want)


def lowered(fn, *platforms):
    return jax.jit(fn).trace(X).lower(lowering_platforms=platforms)


ELSEWHERE = {
    "cpu and tpu": lambda step: lowered(step, "cpu", "tpu"),
    "exported": lambda step: jax.export.export(jax.jit(step), platforms=["cpu"])(X),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_what_runs_elsewhere_is_traced_on_lowering_for_it(where):
    refusal = "only on CPUs"
    for error, step in (
        (ZeroDivisionError, lambda x: native_or_xla(jnp.sin, traced_nowhere, x)),
        (ValueError, lambda x: native_or_xla(jnp.sin, jnp.sin, x, refusal=refusal)),
    ):
        np.testing.assert_array_equal(jax.jit(step)(X), jnp.sin(X))
        with pytest.raises(error, match=refusal if error is ValueError else None):
            ELSEWHERE[where](step)


def test_mapped():
    xs = jnp.arange(12.0).reshape(2, 2, 3)
    twice = jax.vmap(jax.vmap(run, 1, 1))
    np.testing.assert_array_equal(jax.jit(twice)(xs), 11 * xs + 1)
    program = jax.export.export(jax.jit(twice), platforms=["cpu"])(xs)
    np.testing.assert_array_equal(program.call(xs), 3 * xs + 1)


# Derivatives.


def test_derivatives_are_those_of_xlas_program():
    """Test the tangents of perturbed arrays; integers are never perturbed."""

    native = lambda x, n, y: x * n + y
    xla = lambda x, n, y: jnp.sin(x) * n + y
    of_x = lambda x: native_or_xla(native, xla, x, jnp.int32(4).astype(x.dtype), X)
    value, tangent = jax.jvp(of_x, (X,), (X,))
    np.testing.assert_array_equal(value, 5 * X)
    np.testing.assert_allclose(tangent, 4 * jnp.cos(X) * X, rtol=1e-15)
    total = lambda x, n: jnp.sum(native_or_xla(jnp.take, jnp.take, x, n))
    gradient = jax.jit(jax.grad(total))(X, jnp.asarray([0, 2, 2]))
    np.testing.assert_array_equal(gradient, [1, 0, 2])


@jax.custom_jvp
def total(scale, x):
    """The tangent's transpose is deliberately wrong, to show that it is used."""
    return jnp.sum(scale * x["a"]) + jnp.sum(x["b"])


@total.defjvp
def _(primals, tangents):
    push = lambda scale, d_x: jnp.sum(scale * d_x["a"]) + jnp.sum(d_x["b"])
    pull = lambda scale, ct: {"a": ct * 10 * scale * X**0, "b": ct * X**0}
    args = primals[0], tangents[1]
    return total(*primals), native_or_xla(push, push, *args, transpose=pull)


def test_the_transpose():
    x, want = {"a": X, "b": X}, {"a": jnp.full(3, 20.0), "b": jnp.ones(3)}
    of = lambda x: total(2.0, x)
    for make in (jax.grad(of), jax.jit(jax.grad(of)), jax.grad(jax.checkpoint(of))):
        jax.tree.map(np.testing.assert_array_equal, make(x), want)
    one = jax.grad(lambda a: of({"a": a, "b": X}))(X)
    np.testing.assert_array_equal(one, want["a"])
    # XLA's program computes derivatives of the tangent.
    d_scale = jax.grad(lambda scale: jax.jvp(lambda x: total(scale, x), (x,), (x,))[1])
    np.testing.assert_array_equal(d_scale(2.0), jnp.sum(X))


@pytest.mark.parametrize("axes", [(0, None), (None, 0)])
def test_the_transpose_under_vmap(axes):
    scales, xs = np.asarray([2.0, 3.0]), np.stack([X, -X])
    given = scales[0] if axes[0] is None else scales, X if axes[1] is None else xs
    of = lambda scale, a: total(scale, {"a": a, "b": X})
    got = jax.jit(jax.vmap(jax.grad(of, 1), axes))(*given)
    want = np.broadcast_to(np.expand_dims(10 * given[0], -1), (2, 3))
    np.testing.assert_array_equal(got, want)
