"""Pack the pictures of digits into one small file next to this script.

    pip download --no-deps scikit-learn==1.9.1
    unzip 'scikit_learn-*.whl' 'sklearn/datasets/data/digits.csv.gz'
    python make_digits.py sklearn/datasets/data/digits.csv.gz

The script needs only NumPy and downloads nothing. The same source gives the same bytes.
See `ATTRIBUTION.md` for the authors and the license of the data.
"""

import numpy as np
from write import write

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


if __name__ == "__main__":
    write(__file__, __doc__ or "", "source", "digits.csv.gz", pack)
