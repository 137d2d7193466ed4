"""A cell and a wrapper of a user, from the parts that `jaxrnn.extend` offers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import jaxrnn
from jaxrnn import extend
from jaxrnn.extend import fields
from jaxrnn.testing import check_cell

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (3, 4, 2))


@fields.dataclass
class Leaky(extend.SpecsCell):
    """A leaky integrator of a projection."""

    num_units: int = fields.size()
    leak: float = fields.number(0.1, low=0, high=1)
    activation: fields.ActivationLike = fields.activation(none="linear")

    state_size = output_size = property(lambda self: self.num_units)

    def param_specs(self, depth):
        return extend.affine_specs(depth, self.num_units)

    def step(self, params, inputs, state):
        extend.expect(len(inputs) < 9, "inputs", "have few rows", inputs, "Split.")
        z = extend.affine(params, [inputs], state.dtype)
        state = (1 - self.leak) * state + self.leak * self.activation(z)
        return state, state


class Undecorated(Leaky):
    rate: float = fields.number(1.0)


@fields.dataclass
class Scaled(extend.ParamsWrapper):
    """Multiplies the inputs of a cell by a learned vector."""

    def own_specs(self, depth):
        return {"scale": jaxrnn.ParamSpec((depth,), jax.nn.initializers.ones)}

    def init(self, key, inputs, dtype=None):
        depth = extend.check_step_inputs(inputs).shape[1]
        return self.init_params(key, depth, inputs, dtype)

    def apply(self, params, inputs, state, key=None):
        inputs = extend.check_step_inputs(inputs)
        own, inner = self.checked_params(params, inputs, key)
        return self.cell.apply(inner, inputs * own["scale"][None], state, key)


@pytest.mark.slow
def test_the_laws_of_cells():
    cell = Scaled(Leaky(3, 0.5, "tanh"))
    check_cell(cell, jax.ShapeDtypeStruct((4, 3), jnp.float32))


def test_a_cell_from_its_specs_and_its_step():
    assert Leaky(3) == Leaky(3, leak=0.1)
    assert Leaky(3).activation(2.0) == 2.0
    cell = bound(Leaky(3), 2)
    outputs, _ = jaxrnn.dynamic_rnn(cell, X, dtype=X.dtype)
    want = jnp.zeros((3, 3))
    for t in range(4):
        z = X[:, t] @ cell.params["kernel"] + cell.params["bias"][None]
        want = 0.9 * want + 0.1 * z
        np.testing.assert_allclose(outputs[:, t], want, rtol=1e-5)


def test_a_wrapper_with_parameters():
    cell = Scaled(jaxrnn.GRUCell(3))
    params = cell.init(KEY, X[:, 0])
    assert list(params) == ["scale", "gru_cell"]
    params["scale"] = jnp.array([2.0, 3.0])
    got, _ = jaxrnn.dynamic_rnn(cell.bind(params), X, dtype=X.dtype)
    inner = cell.cell.bind(params["gru_cell"])
    want, _ = jaxrnn.dynamic_rnn(inner, X * params["scale"][None, None], dtype=X.dtype)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_errors_name_the_argument():
    cell, x = bound(Leaky(3), 2), X[:, 0]
    rows = r"^`inputs` must have few rows, got float64\[9, 2\]\. Split\.$"
    with pytest.raises(ValueError, match=rows):
        cell(jnp.ones((9, 2)), jnp.ones((9, 3)))
    with pytest.raises(ValueError, match=r"^`leak` must be in \[0, 1\], got 2\.0\.$"):
        Leaky(3, leak=2.0)
    with pytest.raises(TypeError, match=r"^Undecorated declares fields\. Add `@"):
        Undecorated(3)
    structure = r"^`params` must have the structure {'scale': \*}"
    with pytest.raises((TypeError, ValueError), match=structure):
        Scaled(cell.cell).apply({"leaky": cell.params}, x, x)


@pytest.mark.parametrize("size", [None, (2,), (4, 2)])
def test_inputs_of_a_step_have_the_given_size(size):
    x = jnp.ones((3, *(size or (7,))))
    assert extend.check_step_inputs(x, size=size) is not None
    axes = f"be {['batch', *(size or ('depth',))]}".replace("'", "")
    with pytest.raises(ValueError, match=re.escape(axes)):
        extend.check_step_inputs(x[..., None], size=size)
