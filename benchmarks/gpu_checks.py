"""Checks that jaxrnn computes the right numbers on this machine's device.

`gpu.py` starts processes of this module, and each answers its requests. They run with
the options of the test suite and exact products. A check that fails raises an error.
"""

import functools
import importlib.metadata
import itertools
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp

from .peers import ROOT
from .worker import CheckoutFinder, serve

Names = dict[str, list[str]]

SMALL = {
    "laws": ["LSTMCell: runs_as_a_loop", "LSTMCell: ignores_padding"],
    "goldens": ["basic_lstm-ragged-f64", "gru-ragged-f64", "basic_rnn-padding_nan-0"],
}
PACKAGES = re.compile(r"jax|jaxlib|jax-cuda.*|nvidia-cu(dnn|blas).*|flax|torch")


class Checker:
    """Answers the requests of `gpu.py`."""

    def hello(self) -> dict[str, Any]:
        """The device and the versions."""
        device = jax.local_devices()[0]
        stats = device.memory_stats() or {}
        memory = stats.get("bytes_limit")
        facts = {
            "device": device.device_kind,
            "memory that JAX may use": memory and f"{memory / 2**30:.1f} GiB",
            "nvidia-smi": _nvidia_smi(),
        }
        return {
            "platform": jax.default_backend(),
            "facts": {name: fact for name, fact in facts.items() if fact},
            "versions": _versions(),
        }

    def names(self, small: bool) -> Names:
        """The names of the checks by part; a few of each if `small`."""
        if small:
            return SMALL
        return {
            "laws": [f"{cell}: {law}" for cell in _cells() for law in _laws()],
            "goldens": list(_goldens()),
        }

    def check(self, part: str, name: str) -> dict[str, Any]:
        """Run one check. The answer is empty if it passes."""
        {"goldens": _golden, "laws": _law}[part](name)
        return {}


def _versions() -> dict[str, str]:
    """The versions of the installed packages that matter."""
    import jaxrnn

    installed = importlib.metadata.distributions()
    names = {(one.metadata["Name"] or "").lower(): one.version for one in installed}
    found = {name: names[name] for name in sorted(names) if PACKAGES.fullmatch(name)}
    return {"jaxrnn": jaxrnn.__version__} | found


def _nvidia_smi() -> str | None:
    """The name, driver, memory, power limit and clock of each GPU; None without one."""
    asked = "--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm"
    try:
        call = ["nvidia-smi", asked, "--format=csv,noheader"]
        found = subprocess.run(call, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return "; ".join(found.stdout.split("\n")).strip("; ") or None


@functools.cache
def _goldens() -> dict[str, Any]:
    """The recorded cases by name: the first of each family, then the second."""
    from golden import store

    families: dict[str, list[Any]] = {}
    for case in store.recorded("tf1")["cases"]:
        families.setdefault(case["family"], []).append(case)
    turns = itertools.chain(*itertools.zip_longest(*families.values()))
    return {case["name"]: case for case in turns if case}


def _golden(name: str) -> None:
    from golden import replay

    replay.check(_goldens()[name])


@functools.cache
def _laws() -> dict[str, Any]:
    from jaxrnn import testing

    return {law.__name__: law for law in testing.LAWS}


@functools.cache
def _cells() -> dict[str, Any]:
    """The common cells, the most common first."""
    import jaxrnn

    return {
        "LSTMCell": jaxrnn.LSTMCell(4),
        "GRUCell": jaxrnn.GRUCell(4),
        "CudnnCompatibleGRUCell": jaxrnn.CudnnCompatibleGRUCell(4),
        "LSTMCell with peepholes and projection": jaxrnn.LSTMCell(
            5, use_peepholes=True, num_proj=3
        ),
        "BasicRNNCell": jaxrnn.BasicRNNCell(4),
        "MultiRNNCell": jaxrnn.MultiRNNCell(
            [jaxrnn.LSTMCell(4), jaxrnn.GRUCell(3)], state_is_tuple=True
        ),
        "MinGRUCell": jaxrnn.MinGRUCell(4),
        "MLSTMCell": jaxrnn.MLSTMCell(4, 2),
    }


@functools.cache
def _setup(cell: str) -> Any:
    from jaxrnn import testing

    return testing.make_setup(_cells()[cell], jax.ShapeDtypeStruct((4, 3), jnp.float32))


def _law(name: str) -> None:
    cell, law = name.split(": ")
    _laws()[law](_setup(cell))


def main() -> None:
    """Set the options of the test suite, and answer requests."""
    # Only `jaxrnn` comes from the checkout; `golden` needs no tests.
    sys.meta_path.insert(0, CheckoutFinder(str(ROOT)))
    sys.path.insert(0, str(ROOT / "tests"))
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_default_matmul_precision", "highest")
    serve(Checker())


if __name__ == "__main__":
    main()
