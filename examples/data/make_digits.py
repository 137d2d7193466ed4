"""Pack the pictures of digits into one small file next to this script.

    pip download --no-deps scikit-learn==1.9.1
    unzip 'scikit_learn-*.whl' 'sklearn/datasets/data/digits.csv.gz'
    python make_digits.py sklearn/datasets/data/digits.csv.gz

The script needs only NumPy and downloads nothing. The same source gives the same bytes.
See `ATTRIBUTION.md` for the authors and the license of the data.
"""

import argparse
from pathlib import Path

import numpy as np

SIDE, DARKEST, PICTURES = 8, 16, 1797


def pack(source):
    """Pictures `[pictures, 8, 8]` with values 0 to 16, and the digits they show."""
    table = np.loadtxt(source, delimiter=",").astype(np.uint8)
    pixels, labels = table[:, :-1], table[:, -1]
    found = (*table.shape, pixels.max(), labels.max())
    wanted = (PICTURES, SIDE * SIDE + 1, DARKEST, 9)
    if found != wanted:
        raise ValueError(
            f"{source}: (rows, columns, largest pixel, largest digit) must be "
            f"{wanted}, got {tuple(map(int, found))}. Use the file in `ATTRIBUTION.md`."
        )
    return {"images": pixels.reshape(-1, SIDE, SIDE), "labels": labels}


def main():
    """Read the file named on the command line and write `digits.npz`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="digits.csv.gz")
    target = Path(__file__).with_name("digits.npz")
    arrays = pack(parser.parse_args().source)
    np.savez_compressed(target, **arrays)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    print(f"{target.name}: {shapes}; {target.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
