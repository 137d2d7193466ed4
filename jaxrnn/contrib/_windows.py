"""Windows of the inputs, over which cells of time and frequency run."""

from typing import Any

from .._base.arguments import as_count
from .._cells.hyperparameters import check_number, set_field


def check_window(cell: Any) -> None:
    """Checks and normalizes the fields of windows, the clip, and the number of shards.

    Raises:
        ValueError: If one is not given, or not positive.
        TypeError: If one is not an integer.
    """
    where = type(cell).__name__
    for field in ("feature_size", "frequency_skip", "num_unit_shards"):
        value = getattr(cell, field)
        if value is None:
            raise ValueError(
                f"{where}: `{field}` must be given, got None. The cell runs over "
                "windows of `feature_size` inputs, `frequency_skip` apart."
            )
        set_field(cell, **{field: as_count(where, field, value, fix="")})
    if cell.cell_clip is not None:
        clip = check_number(where, "cell_clip", cell.cell_clip, low=0)
        set_field(cell, cell_clip=clip)


def count_windows(size: int, feature_size: int, frequency_skip: int) -> int:
    """The number of windows that fit into `size` inputs."""
    return max(0, (size - feature_size) // frequency_skip + 1)
