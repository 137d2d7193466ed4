"""The peers in JAX: jaxrnn by each implementation, and those of the other benchmark."""

import dataclasses
import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn._kernels import api
from jaxrnn._kernels._implementation import Implementation
from jaxrnn._kernels._work import Work

from ..built import Built, LeftOutError
from ..data import Data
from ..peers import _jax, _ours
from . import device
from .cases import Case

PyTree = Any

INTERPRETED = "interpreted"
PRECISIONS = {"float32": "highest", "tf32": "default", "bfloat16": "default"}


class Peer:
    """One of these by name; as a module of `benchmarks.peers`.

    Attributes:
        USES: The packages.
    """

    USES: tuple[str, ...] = ("jaxrnn", "jax", "jaxlib")

    def __init__(self, name: str) -> None:
        if name in api.NAMES:
            self._build = functools.partial(build_ours, find(name))
        else:
            module = importlib.import_module(f"benchmarks.peers.{name}")
            self.USES, self._build = module.USES, module.build

    def build(self, case: Case, data: Data) -> Built:
        """The case, with products as its arithmetic has them."""
        jax.config.update("jax_default_matmul_precision", PRECISIONS[case.arithmetic])
        return self._build(case, data)


def find(name: str) -> str | Implementation:
    """What `dynamic_rnn` takes as `implementation`: on a CPU, a kernel interpreted.

    Raises:
        LeftOutError: If it is made for another kind of device.
    """
    if name == "xla":
        return name
    kernel, here = api.make(name), device.platform()
    if kernel.platform == here:
        return kernel
    if here == "cpu" and hasattr(kernel, "interpret"):
        return dataclasses.replace(kernel, interpret=True)
    raise LeftOutError(f"runs on {kernel.platform}, and this is {here}")


def build_ours(implementation: str | Implementation, case: Case, data: Data) -> Built:
    """`dynamic_rnn` with an implementation.

    Raises:
        LeftOutError: If it declines; says why.
    """
    cell, name = _ours.make_cell(case), ""
    if isinstance(implementation, Implementation):
        if reason := implementation.why_not(_work(case, cell)):
            raise LeftOutError(f"declines: {reason}")
        name = INTERPRETED if getattr(implementation, "interpret", False) else ""

    def run(
        params: PyTree, inputs: jax.Array, state: PyTree, lengths: None
    ) -> tuple[PyTree, PyTree]:
        return jaxrnn.dynamic_rnn(
            cell.bind(params),
            inputs,
            lengths,
            state,
            time_major=True,
            implementation=implementation,
        )

    params = _ours.to_params(case, data.weights)
    net = _ours.make_net(case, data, run, params, cell_params=lambda params: params)
    return _jax.build(case, data, {name: net})


def _work(case: Case, cell: Any) -> Work:
    step = jax.ShapeDtypeStruct((case.batch, case.depth), jnp.dtype(case.dtype))
    params = jax.eval_shape(lambda key: cell.init(key, step), jax.random.key(0))
    state = jax.eval_shape(lambda: cell.zero_state(case.batch, step.dtype))
    return Work.of(cell, params, case.time, step, state)
