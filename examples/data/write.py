"""The program of the scripts `make_*.py` in this folder."""

import argparse
from pathlib import Path

import numpy as np


def write(script, text, argument, argument_help, pack):
    """Read what the command line names, and write one file next to the script.

    Args:
        script: The path of the script `make_NAME.py`, which writes `NAME.npz`.
        text: The docstring of the script.
        argument: The name of the only argument, a path.
        argument_help: What the argument is.
        pack: `pack(path)` returns the arrays by name.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument(argument, type=Path, help=argument_help)
    script = Path(script)
    target = script.with_name(f"{script.stem.removeprefix('make_')}.npz")
    arrays = pack(getattr(parser.parse_args(), argument))
    np.savez_compressed(target, **arrays)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    print(f"{target.name}: {shapes}; {target.stat().st_size / 1024:.0f} KiB")
