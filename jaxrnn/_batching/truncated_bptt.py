"""`truncated_bptt`: gradients for sequences that are too long for memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import as_bool, as_count, check_instance, is_list_of
from .._base.errors import expect, is_key, leaf_name
from .._base.inputs import as_array, check_like, like
from .._base.sharding import as_sharded_as, zeros_of
from .._base.trees import serializable
from .._base.typing import Array, PyTree


@serializable
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TruncatedCarry:
    """The carry of `TruncatedBPTT` from window to window, a pytree.

    Attributes:
        state: The state before the oldest of `windows` or, if `reach` is 1, before the
            next window. No gradient flows through this state.
        windows: The last `reach - 1` windows, stacked from the oldest to the newest in
            leaves `[reach - 1, ...]`; `()` if `reach` is 1.
        seen: int32, the number n of windows seen so far, at most `reach - 1`. Only the
            last n entries of `windows` are valid.
    """

    state: PyTree
    windows: PyTree
    seen: Array


@dataclasses.dataclass(frozen=True)
class TruncatedBPTT:
    """The result of `truncated_bptt`: a pair of pure functions, in the style of optax.

    Attributes:
        loss: The loss function of one window; see `truncated_bptt`.
        reach: The number of windows that a gradient flows through.
        has_aux: Whether `loss` also returns auxiliary data.
    """

    loss: Callable[..., Any]
    reach: int
    has_aux: bool

    def init(self, state: PyTree, window: PyTree) -> TruncatedCarry:
        """The carry before the first window.

        On an explicit mesh, the first call of `value_and_grad` shards the carry like
        the carry that the call returns. In `lax.scan`, the type of a carry must not
        change, so pass a state and an example window that are already sharded.

        Args:
            state: The state before the first step, in the form that `loss` accepts.
            window: An example of a window, as arrays or `jax.ShapeDtypeStruct`s. The
                values of the example are not read.

        Raises:
            TypeError: If a leaf of `state` is not an array.
        """
        state = _as_arrays("state", state)
        example = window if self.reach > 1 else ()
        window = jax.eval_shape(lambda x: _as_arrays("window", x), example)
        windows = zeros_of(window, self.reach - 1, like=())
        return TruncatedCarry(state, windows, jnp.int32(0))

    def value_and_grad(
        self, params: PyTree, carry: TruncatedCarry, window: PyTree
    ) -> tuple[PyTree, PyTree, TruncatedCarry]:
        """The loss of the next window, and its gradient with respect to `params`.

        Args:
            params: The parameters, in the form that `loss` accepts.
            carry: The carry from `init`, or from the call for the previous window.
            window: The next window. With a `reach` above 1, the window must have the
                structure, shapes and dtypes of the example given to `init`.

        Returns:
            `(value, gradient, carry)`, or `((value, aux), gradient, carry)` if
            `has_aux`.

        Raises:
            TypeError: If `jax.value_and_grad` does not accept a leaf of `params` or the
                loss; if a leaf of `window` is not an array; if `carry` is not a
                `TruncatedCarry`; if the result of `loss` has the wrong form.
            ValueError: If `window` differs from the example, or the new state differs
                from the old state, in structure, shapes or dtypes; if `carry` was
                created for another `reach`. Nothing is computed in these cases.
        """
        window = _as_arrays("window", window)
        kept = window if self.reach > 1 else ()
        what = "the carry from `init` or from the previous call"
        check_instance("carry", carry, TruncatedCarry, what)
        length = self.reach - 1
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((length, *x.shape), x.dtype), kept
        )
        fix = "Create the carry with `init` of the same object. Pad shorter windows."
        check_like("carry.windows", carry.windows, wanted, fix=fix, error=ValueError)
        types = jax.eval_shape(self._call, params, carry.state, window)
        # On an explicit mesh, the type of an array includes its sharding. The first
        # state is often created without a sharding, and the first windows are zeros
        # with the shapes of an example on the host.
        state = as_sharded_as(types[1], carry.state)
        windows = as_sharded_as(kept, carry.windows, new_axes=1)
        carry = TruncatedCarry(state, windows, carry.seen)

        def newest(params: PyTree) -> tuple[Array, PyTree]:
            state, next_start = self._rerun(params, carry)
            value, new_state, aux = self._call(params, state, window)
            return value, (aux, new_state if self.reach == 1 else next_start)

        differentiate = jax.value_and_grad(newest, has_aux=True)
        (value, (aux, state)), gradient = differentiate(params)
        windows = jax.tree.map(
            lambda old, new: jnp.concatenate([old[1:], new[None]]), windows, kept
        )
        seen = jnp.minimum(carry.seen + 1, length)
        carry = TruncatedCarry(jax.lax.stop_gradient(state), windows, seen)
        return ((value, aux) if self.has_aux else value), gradient, carry

    def _rerun(self, params: PyTree, carry: TruncatedCarry) -> tuple[PyTree, PyTree]:
        """The states before the newest window and after the carry's oldest window."""
        if self.reach == 1:
            return carry.state, carry.state

        def step(state: PyTree, scanned: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
            is_valid, window = scanned

            state = jax.lax.cond(
                is_valid, lambda s: self._call(params, s, window)[1], lambda s: s, state
            )
            return state, state

        is_valid = jnp.arange(self.reach - 1, dtype=jnp.int32)[::-1] < carry.seen
        state, states = jax.lax.scan(step, carry.state, (is_valid, carry.windows))
        return state, jax.tree.map(lambda x: x[0], states)

    def _call(
        self, params: PyTree, state: PyTree, window: PyTree
    ) -> tuple[Array, PyTree, PyTree]:
        result = self.loss(params, state, window)
        fits = is_list_of(result, 2) and (not self.has_aux or is_list_of(result[1], 2))
        must = "return (value, new_state) or, for `has_aux`, (value, (new_state, aux))"
        expect(fits, "loss", must, result, error=TypeError)
        value, rest = result
        new_state, aux = rest if self.has_aux else (rest, None)
        fix = "Return a state like the `state` that `loss` received."
        new_state = like("new_state", new_state, state, fix=fix, error=ValueError)
        return value, new_state, aux


def truncated_bptt(
    loss: Callable[..., Any], *, reach: int = 1, has_aux: bool = False
) -> TruncatedBPTT:
    """Backpropagation through time, truncated to the last `reach` windows.

    The sequence arrives window by window. The state is passed from each window to the
    next, and the gradient flows back through the last `reach` windows. With windows of
    k1 steps, a gradient over k2 = reach * k1 steps is computed every k1 steps.

    Each call of `value_and_grad` returns the loss of the newest window. The call starts
    from the state that the previous call stored, and reruns the previous `reach - 1`
    windows, or all previous windows if there are fewer, with the current parameters.
    With fixed parameters, the states are the same as in one run over the whole
    sequence. Under `jit`, a call costs as much as a gradient through `reach` windows of
    which only the newest has a loss. All calls with windows of the same shapes share
    one compilation. Calls also work in `lax.scan` over stacked windows and under
    `vmap`.

    Call `init` again for a new epoch. A carry is a pytree. To checkpoint a carry, save
    its leaves, and restore the leaves into the structure that `init` returns. To learn
    an initial state, include the state in `params`, and let `loss` use this state
    instead of the argument `state` in the first window.

    Args:
        loss: `loss(params, state, window) -> (value, new_state)`, or `-> (value,
            (new_state, aux))` if `has_aux`. `value` is a floating-point scalar, and
            `new_state` is the state after the window. Random numbers must come from a
            key in the window, so that a rerun draws the same numbers. The window may be
            any pytree, such as `(window, key)`.
        reach: The number of windows that a gradient flows through. If `reach` is 1, no
            window is stored, and windows may differ in length; each length is compiled
            once.
        has_aux: Whether `loss` also returns auxiliary data, which has no gradient.

    Returns:
        An object with `init(state, window) -> carry` and
        `value_and_grad(params, carry, window) -> (value, gradient, carry)`.

    Raises:
        TypeError: If `loss` is not callable, `reach` is not an integer, or `has_aux` is
            not a bool.
        ValueError: If `reach` is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, jaxrnn
        >>> cell = jaxrnn.GRUCell(3)
        >>> x = np.sin(np.arange(600, dtype=np.float32)).reshape(2, 100, 3)
        >>> def loss(params, state, window):
        ...     outputs, state = jaxrnn.dynamic_rnn(
        ...         cell.bind(params), window.inputs, window.sequence_length, state
        ...     )
        ...     return jnp.mean(outputs**2), state
        >>> bptt = jaxrnn.truncated_bptt(loss, reach=3)
        >>> step = jax.jit(bptt.value_and_grad)
        >>> params = cell.init(jax.random.key(0), x[:, 0])
        >>> windows = jaxrnn.windows(x, 20)
        >>> carry = bptt.init(cell.zero_state(2, jnp.float32), windows[0])
        >>> for window in windows:
        ...     value, gradient, carry = step(params, carry, window)
        ...     params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)

    Source: Williams and Peng 1990, doi:10.1162/neco.1990.2.4.490, who call the
    algorithm BPTT(k2; k1); Sutskever 2013, "Training recurrent neural networks".
    """
    expect(callable(loss), "loss", "be callable", loss, error=TypeError)
    reach = as_count("reach", reach, fix="For BPTT(k2; k1), pass `k2 // k1`.")
    return TruncatedBPTT(loss, reach, as_bool("has_aux", has_aux))


def _as_arrays(name: str, tree: PyTree) -> PyTree:
    """The nest with arrays as leaves; None stays None.

    The arrays are strongly typed, so that their types stay fixed.
    """

    def as_leaf(path: tuple, leaf: Any) -> Array:
        array = as_array(leaf_name(name, path), leaf)
        return array if is_key(array) else array.astype(array.dtype)

    return jax.tree.map_with_path(as_leaf, tree)
