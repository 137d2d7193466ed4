"""One program on CPUs, another elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxrnn._autodiff.by_platform import by_platform

X = jnp.arange(3.0)


def tenfold(pair, y):
    return {"z": 10 * pair[0] + pair[1] + y}


def doubled(pair, y):
    return {"z": 2 * pair[0] + pair[1] + y}


def run(x):
    """Tells where it runs: the results of its programs differ on purpose."""
    return by_platform(tenfold, doubled, (x, x), jnp.float64(1.0))["z"]


def traced_nowhere(*_):
    raise ZeroDivisionError


def exported(fn, *platforms):
    return jax.export.export(jax.jit(fn), platforms=platforms)(X)


@pytest.mark.parametrize("is_jitted", [True, False])
def test_on_a_cpu(is_jitted):
    with jax.disable_jit(not is_jitted):
        np.testing.assert_array_equal(jax.jit(run)(X), 11 * X + 1)
        np.testing.assert_array_equal(run(X), 11 * X + 1)


def test_exported():
    for platforms in (("cpu",), ("cpu", "tpu")):
        np.testing.assert_array_equal(exported(run, *platforms).call(X), 3 * X + 1)


def test_what_runs_elsewhere_is_traced_on_lowering_for_it():
    step = lambda x: by_platform(jnp.sin, traced_nowhere, x)
    np.testing.assert_array_equal(jax.jit(step)(X), jnp.sin(X))
    traced = jax.jit(step).trace(X)
    for make in (
        lambda: traced.lower(lowering_platforms=("tpu",)),
        lambda: traced.lower(lowering_platforms=("cpu", "tpu")),
        lambda: exported(step, "cpu"),
    ):
        with pytest.raises(ZeroDivisionError):
            make()


def test_mapped():
    xs = jnp.stack([X, 2 * X, 3 * X, 4 * X]).reshape(2, 2, 3)
    twice = jax.vmap(jax.vmap(run, 1, 1))
    np.testing.assert_array_equal(jax.jit(twice)(xs), 11 * xs + 1)
    program = jax.export.export(jax.jit(twice), platforms=["cpu"])(xs)
    np.testing.assert_array_equal(program.call(xs), 3 * xs + 1)


def test_in_loops_and_branches():
    def step(x, _):
        return jax.lax.cond(x[0] < 100, run, jnp.negative, x), None

    loop = lambda x: jax.lax.scan(step, x, None, 4)[0]
    once = 11 * X + 1
    np.testing.assert_array_equal(jax.jit(loop)(X), -(11 * (11 * once + 1) + 1))


def test_the_precision_of_products_is_that_of_the_call():
    def step(x):
        with jax.default_matmul_precision("highest"):
            return by_platform(jnp.sum, lambda x: x @ x, x)

    assert "HIGHEST" in exported(step, "tpu").mlir_module()


def test_it_has_no_derivative():
    with pytest.raises(NotImplementedError, match="rule for 'by_platform' not impl"):
        jax.jvp(run, (X,), (X,))
