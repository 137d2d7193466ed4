"""The base class of grid LSTMs, which run two LSTMs over windows of the inputs.

One LSTM runs in time, the other along frequency, from each window to the next higher
window.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.export
import jax.numpy as jnp
from jax.nn.initializers import zeros

from jaxrnn import ParamSpec, extend
from jaxrnn.extend import fields
from jaxrnn.typing import Array, Initializer, Params, PyTree, Size, Specs

from ._contrib_lstm import add_peephole, clip_symmetric, joined, shard_specs

_LSTMS = ("freq", "time")


def required_count() -> Any:
    """A field for the size or the distance of windows, which has no usable default."""

    def check(name: str, value: Any) -> int:
        extend.expect(value is not None, name, "be given", None)
        return extend.as_count(name, value, fix="")

    return dataclasses.field(default=None, metadata={"check": check})


def _counts(least: int) -> Any:
    """A field for a list of integers, which is stored as a tuple."""

    def check(name: str, value: Any) -> tuple[int, ...]:
        must = "be a list with an entry for each block"
        fix = "For one block, pass a list such as `[3]`."
        extend.expect(
            isinstance(value, list | tuple), name, must, value, fix, error=TypeError
        )
        entries = enumerate(value)
        return tuple(
            extend.as_count(f"{name}[{k}]", n, least, fix="") for k, n in entries
        )

    return fields.checked(check, default=None)


@fields.dataclass
class GridLSTM(extend.SpecsCell):
    """The base class of both grid LSTMs, which declares their common fields.

    `GridLSTMCell` describes the fields and the errors of their checks.
    """

    num_units: int = fields.size()
    use_peepholes: bool = fields.flag(False)
    share_time_frequency_weights: bool = fields.flag(False)
    cell_clip: float | None = fields.number(None, low=0)
    initializer: Initializer | None = fields.initializer()
    num_unit_shards: int = fields.count(default=1)
    forget_bias: float = fields.number(1.0)
    feature_size: int = required_count()
    frequency_skip: int = required_count()
    num_frequency_blocks: Sequence[int] = _counts(least=1)
    start_freqindex_list: Any = _counts(least=0)
    end_freqindex_list: Any = _counts(least=0)
    couple_input_forget_gates: bool = fields.flag(False)

    state_is_tuple = True
    scopes: ClassVar[tuple[str, ...]] = ()
    """The key of each direction's parameters; empty for a single direction."""
    num_windows = property(
        lambda self: sum(self.num_frequency_blocks) * max(1, len(self.scopes)),
        doc="The number of windows in all blocks and directions.",
    )
    # The output of a window consists of two vectors, m of both LSTMs. The state has the
    # same size, because it holds c and m of the LSTM in time.
    output_size = property(lambda self: 2 * self.num_units * self.num_windows)
    _gate_count = property(lambda self: 4 - self.couple_input_forget_gates)
    # The LSTMs that have parameters; with shared weights, only the LSTM in frequency.
    _kinds = property(lambda self: _LSTMS[: 2 - self.share_time_frequency_weights])

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks = self.num_frequency_blocks
        starts = self.start_freqindex_list or ()
        ends = self.end_freqindex_list or ()
        must = "hold the number of windows of each block"
        extend.expect(blocks, "num_frequency_blocks", must, blocks)
        reads_all_inputs = len(blocks) == 1 and not starts and not ends
        must = f"have length {len(blocks)}, with one entry per block"
        fix = "If a single block reads all inputs, omit both lists."
        lists = {"end_freqindex_list": ends, "start_freqindex_list": starts}
        for name, given in lists.items():
            fits = reads_all_inputs or len(given) == len(blocks)
            extend.expect(fits, name, must, len(given), fix)
        for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
            must = f"be above `start_freqindex_list[{block}]` ({start})"
            extend.expect(end > start, f"end_freqindex_list[{block}]", must, end)
            self._check_count(block, end - start)

    def _check_count(self, block: int, size: int) -> None:
        """Raises ValueError if the block's number of windows does not match `size`."""
        found = count_windows(size, self)
        must = f"be {found} (the number of windows in inputs of size {size})"
        count = self.num_frequency_blocks[block]
        extend.expect(count == found, f"num_frequency_blocks[{block}]", must, count)

    def _check_depth(self, depth: int) -> None:
        """Raises ValueError unless the cell's windows fit inputs of this depth."""
        if not self.start_freqindex_list:
            self._check_count(0, depth)
            return
        last = max(self.end_freqindex_list)
        must = f"not exceed the depth of the inputs ({depth})"
        extend.expect(last <= depth, "end_freqindex_list", must, last)

    @property
    def state_tuple_type(self) -> type:
        """The named tuple class of the state."""
        prefixes = tuple(f"{scope}_state" for scope in self.scopes) or ("state",)
        name = f"{type(self).__name__.removesuffix('Cell')}StateTuple"
        return state_type(name, prefixes, self.num_frequency_blocks)

    @property
    def state_size(self) -> Size:
        """The sizes of each window's c and m; their sum if the state is one array."""
        if not self.state_is_tuple:
            return self.output_size
        return self.state_tuple_type(*[self.num_units] * 2 * self.num_windows)

    def param_specs(self, depth: int) -> Specs:
        """Specs of all parameters, whose shapes do not depend on `depth`."""
        self._check_depth(depth)
        specs = {}
        count = self._gate_count
        units = self.num_units
        rows = self.feature_size + 2 * units
        shards = self.num_unit_shards
        diagonal = ParamSpec((units,), self.initializer or extend.glorot_uniform)
        gates = "FIO"[4 - count :] if self.use_peepholes else ""
        blocks = map(str, range(len(self.num_frequency_blocks)))
        for block, kind in itertools.product(blocks, self._kinds):
            name = f"{kind[0]}_{block}"
            specs |= shard_specs(self, f"W_{name}", rows, count * units, shards)
            specs[f"B_{name}"] = ParamSpec((count * units,), zeros)
            for gate, of in itertools.product(gates, "ft"):
                specs[f"W_{gate}_diag_{kind}{of}_{block}"] = diagonal
        return dict.fromkeys(self.scopes, specs) or specs

    def step(self, params: Params, inputs: Array, state: Any) -> tuple[Array, PyTree]:
        """Runs both LSTMs over all windows; see `SpecsCell.step`."""
        join = functools.partial(jnp.concatenate, axis=-1)
        if not self.state_is_tuple:
            state = jnp.split(state, 2 * self.num_windows, axis=-1)
        leaves = iter(state)
        outputs = []
        new = []
        for scope, block, starts in self._passes():
            product = self._product(params, scope, block)
            below = None
            for x in self.windows(inputs, scope, starts):
                before = next(leaves), next(leaves)
                below = below or tuple(map(jnp.zeros_like, before))
                below, after = self._update(product, block, x, below, before)
                outputs += [after[1], below[1]]
                new += after
        new = self.state_tuple_type(*new) if self.state_is_tuple else join(new)
        return join(outputs), new

    def _product(self, params: Params, scope: str | None, block: int) -> Params:
        """A pass's parameters, with the kernels and the biases of both LSTMs joined."""
        params = params[scope] if scope else params
        names = [f"{kind[0]}_{block}" for kind in self._kinds]
        kernels = [joined(params, f"W_{n}", self.num_unit_shards) for n in names]
        biases = [params[f"B_{name}"] for name in names]
        return params | {
            "kernel": jnp.concatenate(kernels, axis=-1),
            "bias": jnp.concatenate(biases, axis=-1),
        }

    def _passes(self) -> list[tuple[str | None, int, range]]:
        """The passes along frequency, in the order of states and outputs.

        A pass runs over the windows of one block in one direction.

        Returns:
            For each pass, a tuple of three entries: the key of the pass's parameters,
            or None for the top level; the number of the block; and the index of each
            window's first input.
        """
        firsts = self.start_freqindex_list or (0,)
        skip = self.frequency_skip
        counts = zip(firsts, self.num_frequency_blocks, strict=True)
        starts = [range(n, n + count * skip, skip) for n, count in counts]
        scoped = itertools.product(self.scopes or (None,), enumerate(starts))
        return [(scope, *block) for scope, block in scoped]

    def windows(self, inputs: Array, scope: str | None, starts: Any) -> list[Array]:
        """The windows of a pass, each `[batch, feature_size]`."""
        return [inputs[:, start : start + self.feature_size] for start in starts]

    def _update(
        self, params: Params, block: int, x: Array, below: tuple, before: tuple
    ) -> tuple[tuple, tuple]:
        """The new `(c, m)` of a window in frequency, and its new `(c, m)` in time.

        Args:
            params: The parameters of the pass.
            block: The number of the block.
            x: The window.
            below: `(c, m)` in frequency from the window below.
            before: `(c, m)` in time from the previous step.
        """
        wide = max((leaf.dtype for leaf in before), key=lambda d: d.itemsize)
        z = extend.affine(params, (x, before[1], below[1]), wide)
        shared = self.share_time_frequency_weights
        products = (z, z) if shared else jnp.split(z, 2, axis=-1)
        gates = [jnp.split(z, self._gate_count, axis=-1) for z in products]
        peep = functools.partial(self._peep, params, block)
        old = below[0], before[0]
        new = [self._new_c(peep, k, gates[k], old) for k in range(2)]
        m = []
        for k in range(2):
            o = jax.nn.sigmoid(peep("O", k, gates[k][-1], new))
            m.append((o * jnp.tanh(new[k])).astype(before[1].dtype))
        return (new[0], m[0]), (new[1], m[1])

    def _new_c(self, peep: Callable, k: int, gates: list[Array], old: tuple) -> Array:
        """The new c of LSTM k; `old` holds the old c in frequency and in time."""
        i, j, *rest = gates
        i = jax.nn.sigmoid(peep("I", k, i, old))
        if self.couple_input_forget_gates:
            f = 1 - i
        else:
            f = jax.nn.sigmoid(peep("F", k, rest[0] + self.forget_bias, old))
        return clip_symmetric(f * old[k] + i * jnp.tanh(j), self.cell_clip)

    def _peep(
        self, params: Params, block: int, gate: str, k: int, z: Array, both: Sequence
    ) -> Array:
        """Adds a gate's peepholes to `z`; `both` holds c in frequency and in time."""
        # With shared weights, both LSTMs use the peepholes of the LSTM in frequency.
        start = f"W_{gate}_diag_{self._kinds[-k]}"
        for of, c in zip("ft", both, strict=True):
            z = add_peephole(params, f"{start}{of}_{block}", z, c)
        return z


def count_windows(size: int, cell: Any) -> int:
    """The number of windows of `cell` that fit into `size` inputs.

    Raises:
        ValueError: If no window fits.
    """
    width = cell.feature_size
    must = f"not exceed the number of inputs ({size})"
    extend.expect(width <= size, "feature_size", must, width)
    return (size - width) // cell.frequency_skip + 1


@functools.cache
def state_type(name: str, prefixes: tuple[str, ...], blocks: tuple[int, ...]) -> type:
    """Returns the class of the state; the same class for equal arguments.

    Args:
        name: The name of the class.
        prefixes: The prefix of the field names in each direction.
        blocks: The number of windows in each block.

    Returns:
        A named tuple class with the fields `<prefix>_f<window>_b<block>_c` and `..._m`.
    """
    fields = [
        f"{prefix}_f{window:02}_b{block:02}_{leaf}"
        for prefix in prefixes
        for block, count in enumerate(blocks)
        for window in range(count)
        for leaf in "cm"
    ]
    made: Any = collections.namedtuple(name, fields)
    # By default, pickle would look for a class with this name in this module.
    arguments = name, prefixes, blocks
    made.__reduce__ = lambda self: (_remake, (arguments, tuple(self)))
    serialized_name = "_".join([f"jaxrnn.{name}", *prefixes, *map(str, blocks)])
    jax.export.register_namedtuple_serialization(made, serialized_name=serialized_name)
    return made


def _remake(arguments: tuple, leaves: tuple) -> tuple:
    return state_type(*arguments)(*leaves)
