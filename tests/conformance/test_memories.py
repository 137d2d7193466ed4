"""Matrix memories against the naive functions of `flash-linear-attention`, in float64.

Its package `fla-core` has functions that run step by step in PyTorch. It has none for
RWKV-7, which it computes as DPLR. Importing the package itself would need Triton.
"""

import importlib.metadata
import runpy

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import differentiated, largest_error
from in_float64 import in_float64

import jaxrnn

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("einops")
ROWS, TIME, HEADS, KEY, VALUE = 2, 70, 2, 8, 6
KEYS = {"num_heads": HEADS, "key_size": KEY, "value_size": VALUE}
LINEAR, DELTA = jaxrnn.LinearAttentionMemoryCell, jaxrnn.DeltaMemoryCell
DPLR, RWKV6 = jaxrnn.DPLRMemoryCell, jaxrnn.RWKV6MemoryCell
# The folder and the function in `fla/ops`, our cell, the order of its inputs there, and
# whether the axis of heads comes before that of time.
CASES = {
    "simple_gla": ("naive_recurrent_simple_gla", LINEAR(**KEYS), "q k v g", False),
    "gla": ("naive_recurrent_gla", LINEAR(**KEYS, key_decay=True), "q k v g", False),
    "delta_rule": ("delta_rule_recurrence", DELTA(**KEYS), "q k v beta", True),
    "gated_delta_rule": (
        "naive_recurrent_gated_delta_rule",
        DELTA(**KEYS),
        "q k v beta g",
        False,
    ),
    "kda": (
        "naive_recurrent_kda",
        DELTA(**KEYS, key_decay=True),
        "q k v g beta",
        False,
    ),
    "generalized_delta_rule/dplr": (
        "dplr_recurrence",
        DPLR(**KEYS),
        "q k v a b g",
        True,
    ),
    "rwkv6": ("naive_recurrent_rwkv6", RWKV6(**KEYS), "q k v g bonus", True),
}
# Vectors as in RWKV-7: b is -a times a rate. Decays as in RWKV-5, equal in all steps.
VARIANTS = {"rwkv7": "generalized_delta_rule/dplr", "rwkv5": "rwkv6"}
RUNS = [*CASES, *VARIANTS]


def arrays_of(name, cell):
    """Parameters, inputs with keys of norm 1 and decays from -e^-6 to -e^4; a state."""
    rng = np.random.default_rng(RUNS.index(name))
    sizes = cell.input_sizes
    draw = lambda size: rng.normal(size=(ROWS, TIME, *size))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    made = sizes._replace(**{n: draw(size) for n, size in sizes._asdict().items()})
    made = made._replace(k=unit(made.k), g=-np.exp(rng.uniform(-6, 4, made.g.shape)))
    if "beta" in made._fields:
        made = made._replace(beta=rng.uniform(0, 2, made.beta.shape))
    else:
        made = made._replace(
            **{n: unit(getattr(made, n)) for n in "ab" if hasattr(made, n)}
        )
    if name == "rwkv7":
        made = made._replace(a=-made.k, b=made.k * rng.random(made.k.shape))
    if name == "rwkv5":
        made = made._replace(g=np.broadcast_to(made.g[:1, :1], made.g.shape))
    if name == "delta_rule":
        made = made._replace(g=0 * made.g)
    params = {n: draw(x.shape)[0, 0] for n, x in cell.param_specs(KEY).items()}
    return params, made, rng.normal(size=(ROWS, *cell.state_size))


def naive(folder, function):
    """A function of the package, without its imports."""
    home = importlib.metadata.distribution("fla-core").locate_file(f"fla/ops/{folder}")
    file = "recurrent_naive" if folder == "rwkv6" else "naive"
    return runpy.run_path(f"{home}/{file}.py")[function]


def of_fla(name, params, inputs, state):
    """Outputs, the last state, and the gradients of the sum of their squares."""
    folder = VARIANTS.get(name, name)
    function, _, order, heads_first = CASES[folder]
    function = naive(folder, function)
    given = params | inputs._asdict()
    given = {n: torch.tensor(x, requires_grad=True) for n, x in given.items()}
    start = torch.tensor(state, requires_grad=True)
    turn = lambda x: x.transpose(1, 2) if heads_first and x.ndim > 2 else x
    # The functions compute in float32, whatever they are given.
    with in_float64(torch):
        args = [turn(given[n]) for n in order.split()]
        h, last = function(*args, initial_state=start, output_final_state=True)
        h = turn(h)
        (h.square().sum() + last.square().sum()).backward()
    grads = {n: given[n].grad.numpy() for n in order.split()}
    return h.detach().numpy(), last.detach().numpy(), grads, start.grad.numpy()


@pytest.mark.parametrize("name", RUNS)
def test_memory(name, record_property):
    """Chunks, and a run whose time is cut by resets, as separate sequences of fla."""
    cell = CASES[VARIANTS.get(name, name)][1]
    params, inputs, state = arrays_of(name, cell)
    h, last, grads, of_state = of_fla(name, params, inputs, state)

    def run(params, inputs, state):
        return jaxrnn.dynamic_rnn(cell.bind(params), inputs, initial_state=state)

    total = lambda made: sum(jnp.sum(jnp.square(x)) for x in made)
    given = params, inputs, state
    got, (d_params, d_inputs, d_state) = differentiated(run, *given, total=total)
    pairs = [(got[0], h), (got[1], last), (d_state, of_state)]
    found = d_params | d_inputs._asdict()
    pairs += [(found[n], want) for n, want in grads.items()]
    error = largest_error(pairs)
    record_property("error", error)
    assert error < 1e-10


def test_products_of_delta_steps():
    """DeltaProduct: two steps for each token, of which one decays, and one reads."""
    _, inputs, _ = arrays_of("gated_delta_rule", DELTA(**KEYS))
    first = (np.arange(TIME) % 2 == 0)[None, :, None]
    inputs = inputs._replace(
        q=np.where(first[..., None], 0, inputs.q), g=np.where(first, inputs.g, 0)
    )
    got, last = jaxrnn.dynamic_rnn(DELTA(**KEYS).bind({}), inputs, dtype=float)
    q, k, v, g, beta = map(torch.tensor, inputs)
    function = naive("gated_delta_product", "naive_recurrent_gated_delta_product")
    with in_float64(torch):
        want, state = function(
            q[:, 1::2], k, v, g[:, ::2], beta, KEY**-0.5, num_householder=2
        )
    np.testing.assert_allclose(got[:, 1::2], want, atol=1e-10)
    np.testing.assert_allclose(last, state, atol=1e-10)
