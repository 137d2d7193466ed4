"""What a traced program takes, in bytes and operations, without compiling it.

Bytes are those of the arrays that are alive at the worst point, if what is elementwise
is fused into what reads it, and loops write in place: what XLA does, or nearly.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from .._autodiff.jax_internals import ClosedJaxpr, Jaxpr, Var, dce_jaxpr

# What has no memory of its own, unless a loop or a product reads it.
FUSED = frozenset(
    "abs add add_any and broadcast_in_dim clamp concatenate convert_element_type copy "
    "device_put div dynamic_slice eq erf exp expand_dims expm1 ge gt integer_pow iota "
    "le log log1p logistic lt max min mul ne neg not or pad pow reduce_max reduce_sum "
    "reshape rsqrt select_n sign slice split sqrt square squeeze stop_gradient sub "
    "tanh transpose xor".split()
)
LOOPS = frozenset(["scan", "while"])
IN_PLACE = frozenset(["dynamic_update_slice", "scatter", "scatter-add"])
CALLS = frozenset(
    ["closed_call", "custom_jvp_call", "differentiable", "jit", "pjit", "transposable"]
)
BLANK, END = "broadcast_in_dim", "end"


class Bytes(NamedTuple):
    """Bytes of the memory of the device and of its host."""

    device: int = 0
    host: int = 0

    @classmethod
    def sum(cls, several: Any) -> "Bytes":
        """The sums of both."""
        device, host = 0, 0
        for each in several:
            device, host = device + each.device, host + each.host
        return cls(device, host)


def flops(fn: Callable, *args: Any) -> int:
    """The floating-point operations of all products: two for each factor of a sum.

    Of loops whose end is found at run time one turn counts.
    """
    return _flops(_trace(fn, *args))


def saved_bytes(fn: Callable, *args: Any) -> Bytes:
    """What the derivative of `fn` holds between its passes, beside the arguments."""
    residuals = lambda *args: jax.tree.leaves(jax.vjp(fn, *args)[1])
    jaxpr = jax.make_jaxpr(residuals)(*args).jaxpr
    kept = {v for v in jaxpr.outvars if isinstance(v, Var)} - {*jaxpr.invars}
    return Bytes.sum(map(_bytes, kept))


def peak_bytes(fn: Callable, *args: Any) -> Bytes:
    """The most that is alive at once in `fn`, beside what comes in and goes out."""
    jaxpr = _trace(fn, *args)
    outs = Bytes.sum(_bytes(v) for v in _vars(jaxpr.outvars))
    peak = _peak(jaxpr, reusable=0)
    return Bytes(peak.device - outs.device, peak.host - outs.host)


def _trace(fn: Callable, *args: Any) -> Any:
    """The program, without what nothing reads."""
    jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
    needed = [True] * len(jaxpr.outvars)
    return dce_jaxpr(jaxpr, needed, instantiate=True)[0]


def _flops(jaxpr: Any) -> int:
    return sum(_flops_of(eqn) for eqn in jaxpr.eqns)


def _flops_of(eqn: Any) -> int:
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
    parts = [_flops(inner) for inner in _inner(eqn.params)]
    total = max(parts) if eqn.primitive.name == "cond" else sum(parts)
    return eqn.params.get("length", 1) * total


class _Name:
    """An array of a program in which all calls are written out."""

    def __init__(self, var: Any) -> None:
        self.size, self.type = _bytes(var), str(var.aval)


class _Op(NamedTuple):
    name: str
    params: dict
    reads: list
    makes: list


def _peak(jaxpr: Any, reusable: int) -> Bytes:
    """The most that is alive at once, beside what comes in.

    Args:
        jaxpr: The program.
        reusable: How many of its inputs, from the last, it may write over.
    """
    inputs = [_Name(v) for v in jaxpr.invars]
    ops: list[_Op] = []
    outs = _write_out(jaxpr, inputs, ops)
    ops.append(_Op(END, {}, outs, []))
    life = _Life(ops, inputs[: len(inputs) - reusable])
    alive: dict[_Name, Bytes] = {}
    peaks = [Bytes()]
    for i, op in enumerate(ops):
        made = [name for name in op.makes if life.has_memory(name)]
        # In the body of a loop XLA makes equal blanks once, and copies them for all
        # loops that fill them.
        is_copied = reusable and op.name == BLANK and life.is_shared(made)
        copies = 2 if is_copied else 1
        alive |= {name: Bytes.sum([name.size] * copies) for name in made}
        within = [_peak_within(op, inner) for inner in _inner(op.params)]
        peaks.append(Bytes.sum([*alive.values(), max(within, default=Bytes())]))
        alive = {name: size for name, size in alive.items() if life.end[name] > i}
    return max(peaks)


def _write_out(jaxpr: Any, inputs: list, ops: list) -> list:
    """Adds the operations of a program and of those it calls; what it returns."""
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    names |= {v: _Name(v) for v in jaxpr.constvars}
    for eqn in jaxpr.eqns:
        reads = [names[v] if isinstance(v, Var) else _Name(v) for v in eqn.invars]
        if eqn.primitive.name in CALLS:
            makes = _write_out(next(_inner(eqn.params)), reads, ops)
        else:
            makes = [_Name(v) for v in eqn.outvars]
            ops.append(_Op(eqn.primitive.name, eqn.params, reads, makes))
        names |= zip(eqn.outvars, makes, strict=True)
    return [names[v] if isinstance(v, Var) else _Name(v) for v in jaxpr.outvars]


def _peak_within(op: _Op, inner: Any) -> Bytes:
    """What a part of an operation needs beside what comes in and goes out."""
    if op.name in LOOPS:
        return _peak(inner, reusable=len(op.reads) - _carried(op).start)
    peak, outs = _peak(inner, reusable=0), Bytes.sum(name.size for name in op.makes)
    return Bytes(max(0, peak.device - outs.device), max(0, peak.host - outs.host))


class _Life:
    """Until when the arrays of a program are alive, and which share memory."""

    def __init__(self, ops: list[_Op], fixed: list[_Name]) -> None:
        self.end: dict[_Name, int] = {}
        self.readers: dict[_Name, set[str]] = {}
        self.makers: dict[_Name, str] = {}
        for i, op in enumerate(ops):
            self.makers |= dict.fromkeys(op.makes, op.name)
            for name in op.reads:
                self.end[name] = i
                self.readers.setdefault(name, set()).add(op.name)
        self.fillers: dict[str, set[int]] = {}
        for i, op in enumerate(ops):
            blanks = [n for n in op.reads if self.makers.get(n) == BLANK]
            for name in blanks if op.name in LOOPS else []:
                self.fillers.setdefault(name.type, set()).add(i)
        self.over: dict[_Name, _Name] = {}
        fixed_names = set(fixed)
        for i, op in enumerate(ops):
            for made, source in _written_over(op):
                if self.end[source] == i and source not in fixed_names:
                    self.over[made] = source
        for made, source in reversed(self.over.items()):
            # Memory is taken as long as any of its names is read.
            self.end[source] = max(self.end[source], self.end.get(made, 0))

    def is_shared(self, blanks: list[_Name]) -> bool:
        """Whether several loops fill blanks of this type."""
        return any(len(self.fillers.get(name.type, ())) > 1 for name in blanks)

    def has_memory(self, name: _Name) -> bool:
        """Whether an array has memory of its own."""
        if name in self.over or name not in self.end:
            return False
        needs_it = self.readers[name] & {*LOOPS, "dot_general", END}
        return self.makers[name] not in FUSED or bool(needs_it)


def _written_over(op: _Op) -> list[tuple[_Name, _Name]]:
    """Pairs of what is made and what it is written over."""
    if op.name in IN_PLACE:
        return [(op.makes[0], op.reads[0])]
    if op.name in LOOPS:
        return list(zip(op.makes, op.reads[_carried(op)], strict=False))
    return []


def _carried(op: _Op) -> slice:
    """Which operands of a loop it carries."""
    if op.name == "scan":
        first = op.params["num_consts"]
        return slice(first, first + op.params["num_carry"])
    return slice(op.params["cond_nconsts"] + op.params["body_nconsts"], None)


def _inner(params: dict) -> Iterator[Any]:
    """The programs that an operation holds."""
    for param in params.values():
        for value in param if isinstance(param, tuple | list) else [param]:
            if isinstance(value, ClosedJaxpr):
                yield value.jaxpr
            elif isinstance(value, Jaxpr):
                yield value


def _vars(atoms: Any) -> Iterator[Any]:
    return (v for v in atoms if isinstance(v, Var))


def _bytes(atom: Any) -> Bytes:
    aval = atom.aval
    size = math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 0)
    on_host = getattr(aval, "memory_space", None) == jax.memory.Space.Host
    return Bytes(0, size) if on_host else Bytes(size, 0)
