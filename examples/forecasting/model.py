"""A network that can read its own forecasts, after DeepAR (arXiv:1704.04110).

At each hour, an LSTM reads the last value and what is known of the hour, and predicts
the mean and the deviation of the next value. Where a value is missing, the LSTM reads a
prediction in its place: the mean or, in a forecast, a value drawn at random.
"""

import functools

import jax
import jax.numpy as jnp

import jaxrnn

EMBEDDING = 8


def init(cell, places, covariates, key):
    """Initial parameters of the cell, the head, and a vector for each place."""
    keys = jax.random.split(key, 3)
    inputs = jax.ShapeDtypeStruct((1, 1 + covariates + EMBEDDING), jnp.float32)
    kernel = 0.1 * jax.random.normal(keys[2], (cell.output_size, 2))
    return {
        "places": 0.5 * jax.random.normal(keys[0], (places, EMBEDDING)),
        "cell": cell.init(keys[1], inputs),
        "head": {"kernel": kernel, "bias": jnp.array([0.8, -1.0])},
    }


def predict(head, output):
    """The mean and the deviation of the next value, each `[rows]`."""
    mean, deviation = jnp.unstack(output @ head["kernel"] + head["bias"], axis=-1)
    return mean, jax.nn.softplus(deviation) + 1e-3


def run(cell, params, window, start=None, key=None):
    """Runs the network over a window, whose missing values are NaN.

    Args:
        cell: The cell, without its parameters.
        params: The parameters, from `init`.
        window: The window of `data.py`, with one series in each row.
        start: The cell's state and the value before the window, of one or more paths
            for each row. By default, both are zeros, for one path.
        key: The key with which missing values are drawn. By default, they are means.

    Returns:
        Means, deviations and values, each `[paths, hours]`; the `start` of the window
        that follows.
    """
    rows, steps = window.roots.shape
    start = start or (cell.zero_state(rows, jnp.float32), jnp.zeros(rows))
    repeat = lambda x: jnp.repeat(x, len(start[1]) // rows, axis=0)
    roots, covariates = window.roots.T, jnp.swapaxes(window.covariates, 0, 1)
    place = params["places"][window.place]

    def read(value, time):  # At the end, the last hour is read again, to no effect.
        known = repeat(jnp.concatenate([covariates[time], place], axis=-1))
        return jnp.concatenate([value[:, None], known], axis=-1)

    def loop_fn(time, output, state, _):
        if output is None:  # Time 0.
            state, value = start
            return time >= steps, read(value, time), state, (jnp.zeros(()),) * 3, None
        mean, deviation = predict(params["head"], output)
        guess = mean
        if key is not None:
            noise = jax.random.normal(jax.random.fold_in(key, time), mean.shape)
            guess = mean + deviation * noise
        root = repeat(roots[time - 1])
        value = jnp.where(jnp.isnan(root), guess, root)
        emit = mean, deviation, value
        return time >= steps, read(value, time), state, emit, None

    bound = cell.bind(params["cell"])
    emitted, state, _ = jaxrnn.raw_rnn(bound, loop_fn, max_time=steps)
    means, deviations, values = (ta.stack().T for ta in emitted)
    return (means, deviations, values), (state, values[:, -1])


def compute_loss(cell, params, window):
    """The mean of `-log p(value)` over the values that are there."""
    (means, deviations, _), _ = run(cell, params, window)
    is_observed = ~jnp.isnan(window.roots)
    # Of a missing value, not even the gradient may be NaN.
    values = jnp.where(is_observed, window.roots, means)
    log_p = jax.scipy.stats.norm.logpdf(values, means, deviations)
    return -jnp.mean(log_p, where=is_observed)


@functools.partial(jax.jit, static_argnames=("cell", "context", "paths"))
def draw_paths(cell, params, window, context, paths, key):
    """Draws counts `[rows, paths, hours]` of the hours after the first `context`.

    What the window says about these hours is not read, except for the covariates.
    """
    cut = lambda part: window._replace(
        roots=window.roots[:, part], covariates=window.covariates[:, part]
    )
    past, future = cut(slice(context)), cut(slice(context, None))
    _, start = run(cell, params, past)
    start = jax.tree.map(lambda x: jnp.repeat(x, paths, axis=0), start)
    future = future._replace(roots=jnp.full_like(future.roots, jnp.nan))
    (_, _, roots), _ = run(cell, params, future, start, key)
    # A drawn root may be negative.
    counts = jnp.maximum(roots, 0) ** 2 * jnp.repeat(window.scale, paths)[:, None]
    return counts.reshape(len(window.scale), paths, -1)
