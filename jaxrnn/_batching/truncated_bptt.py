"""`truncated_bptt`: gradients of a sequence too long for memory, window by window."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._base.arguments import as_count
from .._base.errors import describe, is_key
from .._base.inputs import as_array
from .._base.trees import check_structure, map_named, named_leaves
from .._base.typing import Array, PyTree

_WHERE = "truncated_bptt"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TruncatedCarry:
    """What `TruncatedBPTT` carries from window to window, a pytree.

    Attributes:
        state: The state before the oldest of `windows`; no gradient goes through it.
        windows: The last `reach - 1` windows, each leaf `[reach - 1, ...]`, the oldest
            first; `()` if `reach` is 1.
        seen: int32, how many of them have come; those that have not stand in front.
    """

    state: PyTree
    windows: PyTree
    seen: Any


@dataclasses.dataclass(frozen=True)
class TruncatedBPTT:
    """What `truncated_bptt` returns: two pure functions, in the manner of optax.

    Attributes:
        loss: As `truncated_bptt` takes it.
        reach: How many windows a gradient goes back over.
        has_aux: Whether `loss` returns something beside.
    """

    loss: Callable[..., Any]
    reach: int
    has_aux: bool

    def init(self, state: PyTree, window: PyTree) -> TruncatedCarry:
        """What is carried into the first window.

        Args:
            state: The state before the first step, as `loss` takes it.
            window: An example of a window: arrays or `jax.ShapeDtypeStruct`s. Its
                values are not read.

        Raises:
            TypeError: If a leaf of `state` is no array.
        """
        of_state = lambda n, x: None if x is None else as_array(_WHERE, n, x)
        state = _strong(map_named("state", of_state, state))
        window = jax.eval_shape(_strong, window if self.reach > 1 else ())
        room = lambda x: jax.lax.full((self.reach - 1, *x.shape), 0, x.dtype)
        return TruncatedCarry(state, jax.tree.map(room, window), jnp.int32(0))

    def value_and_grad(
        self, params: PyTree, carry: TruncatedCarry, window: PyTree
    ) -> tuple[Any, PyTree, TruncatedCarry]:
        """The loss of the next window, and its gradient by `params`.

        Args:
            params: What the gradient is taken by.
            carry: What `init` or the call for the window before returned.
            window: The next window. With a `reach` above 1 each must have the
                structure, shapes and dtypes of the example that `init` got.

        Returns:
            `(value, gradient, carry)`; `((value, aux), gradient, carry)` if `has_aux`.

        Raises:
            TypeError: If `carry` is no such thing, or `loss` returns no such thing.
            ValueError: If `window` is not like the example, or the new state not like
                the state. Both are seen before anything is run.
        """
        window = _strong(window)
        self._check(params, carry, window)

        def newest(params: PyTree) -> tuple[Array, PyTree]:
            state, next_start = self._rerun(params, carry)
            value, new_state, aux = self._call(params, state, window)
            return value, (aux, new_state if self.reach == 1 else next_start)

        (value, (aux, state)), gradient = jax.value_and_grad(newest, has_aux=True)(
            params
        )
        carry = self._pushed(carry, jax.lax.stop_gradient(state), window)
        return ((value, aux) if self.has_aux else value), gradient, carry

    def _rerun(self, params: PyTree, carry: TruncatedCarry) -> tuple[PyTree, PyTree]:
        """The state before the newest window, and that after the oldest of all held."""
        if self.reach == 1:
            return carry.state, carry.state

        def step(state: PyTree, held: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
            there, old = held
            run = lambda state: self._call(params, state, old)[1]
            state = jax.lax.cond(there, run, lambda state: state, state)
            return state, state

        there = jnp.arange(self.reach - 1, dtype=jnp.int32)[::-1] < carry.seen
        state, states = jax.lax.scan(step, carry.state, (there, carry.windows))
        return state, jax.tree.map(lambda x: x[0], states)

    def _call(
        self, params: PyTree, state: PyTree, window: PyTree
    ) -> tuple[Array, PyTree, PyTree]:
        value, rest = self.loss(params, state, window)
        new_state, aux = rest if self.has_aux else (rest, None)
        return value, _strong(new_state), aux

    def _pushed(
        self, carry: TruncatedCarry, state: PyTree, window: PyTree
    ) -> TruncatedCarry:
        if self.reach == 1:
            return TruncatedCarry(state, (), carry.seen)
        push = lambda held, new: jnp.concatenate([held[1:], new[None]])
        windows = jax.tree.map(push, carry.windows, window)
        seen = jnp.minimum(carry.seen + 1, self.reach - 1)
        return TruncatedCarry(state, windows, seen)

    def _check(self, params: PyTree, carry: Any, window: PyTree) -> None:
        if not isinstance(carry, TruncatedCarry):
            raise TypeError(
                f"{_WHERE}: `carry` must come from `init` or from the call before, got "
                f"{describe(carry)}."
            )
        held = jax.tree.leaves(carry.windows)
        if (held[0].shape[0] if held else 0) != self.reach - 1:
            raise ValueError(
                f"{_WHERE}: `carry` must be made for reach={self.reach}, got one with "
                f"{len(held) and held[0].shape[0]} windows held. Make it by `init`."
            )
        if self.reach > 1:
            one = lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
            example = jax.tree.map(one, carry.windows)
            fix = "So is the example that `init` got; fill a shorter window up."
            _check_like("window", example, window, fix)
        made = jax.eval_shape(self.loss, params, carry.state, window)
        new_state = _state_of(made, self.has_aux)
        fix = "It goes on as `state`, so `loss` keeps its structure, shapes and dtypes."
        _check_like("new_state", carry.state, new_state, fix)


def truncated_bptt(
    loss: Callable[..., Any], *, reach: int = 1, has_aux: bool = False
) -> TruncatedBPTT:
    """Back-propagation through time that goes back over so many windows, no further.

    The sequence comes window by window; the state goes on from each to the next, the
    gradient goes back over the last `reach` of them. With windows of k1 steps that is
    every k1 steps a gradient over k2 = reach * k1.

    A call's value is the loss of its newest window. The `reach - 1` before it are run
    again, with the parameters of the call, for the state that they lead to. The state
    before those is the one that the call before left: a window's last run is that of
    the call in which it is the oldest. With fixed parameters it is the state of a run
    over the whole. What has not come yet is skipped. Under `jit` a call costs what
    `reach` windows cost, with one loss, and one compilation serves all calls, also
    within `lax.scan` over stacked windows and under `vmap`.

    At a new epoch call `init` again. A carry is a pytree: save its leaves, and restore
    them into the structure that `init` makes. A first state that is learned is one of
    `params`; `loss` takes it, in the place of its `state`, where the window is the
    first.

    Args:
        loss: `loss(params, state, window) -> (value, new_state)`, a real scalar and the
            state after the window; `(value, (new_state, aux))` if `has_aux`. Noise is
            to be drawn from what the window holds, so that a window that is run again
            draws the same: a window may be any pytree, such as `(window, key)`.
        reach: How many windows a gradient goes back over. With 1 no window is held,
            and windows may differ in length, at a compilation for each.
        has_aux: Whether `loss` returns something beside, which has no gradient.

    Returns:
        An object with `init(state, window) -> carry` and
        `value_and_grad(params, carry, window) -> (value, gradient, carry)`.

    Raises:
        TypeError: If `loss` is not callable, or `reach` no integer.
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

    Source: Williams and Peng 1990, doi:10.1162/neco.1990.2.4.490, where it is
    BPTT(k2; k1); Sutskever 2013, "Training recurrent neural networks".
    """
    if not callable(loss):
        raise TypeError(f"{_WHERE}: `loss` must be callable, got {describe(loss)}.")
    return TruncatedBPTT(
        loss, as_count(_WHERE, "reach", reach, fix="It is `k2 // k1`."), bool(has_aux)
    )


def _strong(tree: PyTree) -> PyTree:
    """The nest with arrays as leaves, none weakly typed: so types never change."""

    def strong(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        return leaf if is_key(leaf) else leaf.astype(leaf.dtype)

    return jax.tree.map(strong, tree)


def _state_of(made: Any, has_aux: bool) -> PyTree:
    """The new state among what `loss` returned, which must be of the right form."""
    form = "(value, (new_state, aux))" if has_aux else "(value, new_state)"
    if not _is_pair(made) or (has_aux and not _is_pair(made[1])):
        raise TypeError(
            f"{_WHERE}: `loss` must return {form}, got {_shown(made)}. "
            + ("" if has_aux else "More than that goes by `has_aux=True`.")
        )
    value = made[0]
    if getattr(value, "shape", None) != () or not jnp.issubdtype(
        value.dtype, jnp.floating
    ):
        raise TypeError(
            f"{_WHERE}: `loss` must return {form} with a real scalar `value`, got "
            f"{describe(value)}."
        )
    return made[1][0] if has_aux else made[1]


def _is_pair(made: Any) -> bool:
    return isinstance(made, tuple) and len(made) == 2


def _shown(made: Any) -> str:
    if isinstance(made, tuple):
        return f"({', '.join(map(describe, made))})"
    return describe(made)


def _check_like(name: str, want: PyTree, got: PyTree, fix: str) -> None:
    check_structure(f"{_WHERE}: `{name}`", want, got, strict=True, fix=fix)
    pairs = zip(named_leaves(name, want), named_leaves(name, got), strict=True)
    for (full, like), (_, leaf) in pairs:
        if like is not None and (like.shape, like.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"{_WHERE}: `{full}` must be {describe(like)}, got {describe(leaf)}. "
                f"{fix}"
            )
