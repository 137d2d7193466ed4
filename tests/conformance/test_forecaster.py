"""The network of `examples/forecasting`, compared with the same network in PyTorch.

The PyTorch network is a loop over `nn.LSTMCell`, whose weights `from_torch` loads. The
windows hold real counts, with gaps.
"""

import jax
import numpy as np
import pytest
from forecasting import data, model
from helpers import assert_near, usual_promotion

from jaxrnn import convert

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
UNITS, TOLERANCE = 40, 1e-5


class Forecaster(torch.nn.Module):
    """Predicts the mean and the deviation of each value; a mean replaces a gap."""

    def __init__(self):
        super().__init__()
        inputs = 1 + data.COVARIATES + model.EMBEDDING
        self.places = torch.nn.Embedding(data.PLACES, model.EMBEDDING)
        self.lstm = torch.nn.LSTMCell(inputs, UNITS)
        self.head = torch.nn.Linear(UNITS, 2)

    def forward(self, roots, covariates, place):
        place, value = self.places(place), roots.new_zeros(len(roots))
        state, outputs = None, []
        for root, known in zip(roots.T, covariates.swapaxes(0, 1), strict=True):
            state = self.lstm(torch.cat([value[:, None], known, place], 1), state)
            mean, deviation = self.head(state[0]).unbind(1)
            outputs.append((mean, torch.nn.functional.softplus(deviation) + 1e-3))
            value = torch.where(root.isnan(), mean, root)
        return [torch.stack(x, 1) for x in zip(*outputs, strict=True)]


def log_likelihood(means, deviations, roots):
    normal = torch.distributions.Normal(means, deviations)
    is_observed = ~roots.isnan()
    return normal.log_prob(torch.where(is_observed, roots, means))[is_observed]


def test_forecaster_equals_pytorch():
    torch.manual_seed(0)
    theirs = Forecaster()
    weights = {n: x.detach().numpy() for n, x in theirs.state_dict().items()}
    cell = convert.from_torch(theirs.lstm.state_dict())
    head = {"kernel": weights["head.weight"].T, "bias": weights["head.bias"]}
    params = {"cell": cell.params, "head": head, "places": weights["places.weight"]}

    series, names = data.load()
    place = np.array([names.index("150 K Road"), names.index("205 Queen Street"), 0])
    first = np.array([[5700], [1600], [4000]])  # Two rows have gaps.
    with jax.enable_x64(False), usual_promotion():
        window = data.cut(series, place, first + data.FORTNIGHT, data.WEEK)
        run = jax.jit(model.run, static_argnums=0)
        (means, deviations, _), _ = run(cell.cell, params, window)
        loss = jax.value_and_grad(model.compute_loss, argnums=1)
        loss, gradient = jax.jit(loss, static_argnums=0)(cell.cell, params, window)
    assert (np.isnan(window.roots).sum(axis=1) > 50).tolist() == [True, True, False]

    given = [torch.tensor(np.asarray(x)) for x in window[:3]]
    want = theirs(*given)
    want_loss = -log_likelihood(*want, given[0]).mean()
    want_loss.backward()
    numbers = lambda tensors: [x.detach().numpy() for x in tensors]
    got = means, deviations, loss
    assert_near(got, tuple(numbers([*want, want_loss])), tolerance=TOLERANCE)
    got = gradient["places"], gradient["head"]["kernel"].T
    want = theirs.places.weight.grad, theirs.head.weight.grad
    assert_near(got, tuple(numbers(want)), tolerance=TOLERANCE)
