"""Prints how far jaxrnn is from the TensorFlow goldens.

    python tests/golden/deviation.py [contrib]

With `contrib`, for contrib's cells. One row per dtype: the number of goldens, then
the largest absolute and the largest relative deviation in outputs, states and
gradients. Relative deviations of arrays are in the norm of their largest element,
`max |got - wanted| / max |wanted|`.
"""

import collections
import pathlib
import sys

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from golden import replay  # noqa: E402

_PARTS = ("outputs", "state", "grads")


def deviation(got: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """The largest absolute and relative deviation."""
    if not wanted.size:
        return 0.0, 0.0
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    absolute = float(np.abs(got - wanted).max())
    largest = float(np.abs(wanted).max())
    return absolute, absolute / largest if largest else absolute


def main() -> None:
    """Runs all cases and prints the table."""
    contrib = "contrib" in sys.argv[1:]
    cases = replay.recorded_contrib() if contrib else replay.recorded()["cases"]
    counts = collections.Counter(case["dtype"] for case in cases)
    worst = {(dtype, part): (0.0, 0.0) for dtype in counts for part in _PARTS}
    for case in cases:
        for part, _, got, wanted in replay.pairs(case):
            if contrib and case["differs"] and part == "grads":
                continue  # On purpose.
            key = (case["dtype"], part)
            found = zip(worst[key], deviation(got, wanted), strict=True)
            worst[key] = tuple(max(pair) for pair in found)
    print(f"{'dtype':10}{'cases':>6}" + "".join(f"{part:>20}" for part in _PARTS))
    for dtype, count in counts.items():
        cells = (
            f"{absolute:>11.1e} {relative:.1e}"
            for absolute, relative in (worst[dtype, part] for part in _PARTS)
        )
        print(f"{dtype:10}{count:>6}" + " ".join(cells))


if __name__ == "__main__":
    main()
