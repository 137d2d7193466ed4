"""Freezes the names, shapes and dtypes of every cell's parameters.

Weights of a checkpoint drop in by name, so a name or a shape that changes is a break of
the contract. It needs jaxrnn:

    python -m tests.golden.record.params
"""

import json

import jax
import jax.numpy as jnp

from ...cases import CASES
from .. import store


def frozen(case) -> dict[str, list]:
    """`{"gates/kernel": ["float32", 7, 8], ...}` for one row of the table."""
    params = jax.eval_shape(
        lambda: case.cell.init(jax.random.key(0), case.inputs, jnp.float32)
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): [str(p.dtype), *p.shape]
        for path, p in jax.tree.leaves_with_path(params)
    }


def main() -> None:
    """Write `params.json`, a line a parameter."""
    table = {name: frozen(case) for name, case in CASES.items()}
    lines = [
        f'"{name}": {{\n'
        + ",\n".join(f'  "{k}": {json.dumps(v)}' for k, v in params.items())
        + "\n}"
        for name, params in table.items()
    ]
    (store.HERE / "params.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
