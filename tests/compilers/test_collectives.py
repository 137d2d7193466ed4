"""On TPUs and GPUs, collectives are outside of loops.

The compilers for CPUs, TPUs and GPUs place collectives differently: `tests/drivers`
tests CPUs, and these tests cover the others. `benchmarks/collectives.py` has the sizes.
"""

import pytest
from compiler_cases import devices

from benchmarks.collectives import DRIVERS, compiled
from benchmarks.compilers.hlo import collectives

# The layouts of parameters: whole, sharded by rows, sharded by columns.
LAYOUTS = [
    ("data", "auto"),
    ("data", "explicit"),
    ("data", "shard_map"),
    ("FSDP", "auto"),
    ("FSDP", "explicit"),
    ("tensor", "auto"),
    ("tensor", "explicit"),
]
FOUR = [("v5e", 4), ("h100", 4)]
SIZES = [("v5e", 1), ("v5e", 16), ("h100", 1), ("h100", 8)]


LSTM = [(*layout, "dynamic_rnn", "LSTM") for layout in LAYOUTS]
OTHERS = [
    ("data", "explicit", "bidirectional", "LSTM"),
    ("FSDP", "auto", "bidirectional", "LSTM"),
    ("data", "shard_map", "bidirectional", "LSTM"),
    ("data", "auto", "mask", "LSTM"),
    ("data", "explicit", "mask", "LSTM"),
    ("FSDP", "auto", "mask", "LSTM"),
    ("data", "auto", "dynamic_rnn", "LSTM, GRU"),
    ("FSDP", "explicit", "dynamic_rnn", "LSTM, GRU"),
    ("tensor", "auto", "dynamic_rnn", "LSTM, GRU"),
    ("data", "shard_map", "swap_memory", "LSTM"),
    ("data", "shard_map", "raw_rnn", "LSTM"),
    ("data", "shard_map", "beam_search", "LSTM"),
]


ON_FOUR = [(*size, *row) for size in FOUR for row in LSTM + OTHERS]
ON_SIZES = [(*size, *row) for size in SIZES for row in LSTM[2:5]]
NAMES = "kind", "count", "layout", "axes", "driver", "cell"


@pytest.mark.parametrize(NAMES, ON_FOUR + ON_SIZES)
def test_no_collective_in_a_loop(kind, count, layout, axes, driver, cell):
    inside, outside = found(kind, count, layout, axes, driver, cell)
    assert inside == []
    assert ("all-gather" in outside) == (count > 1 and layout != "data")
    assert ("all-reduce" in outside) == (count > 1)


@pytest.mark.parametrize("axes", ["auto", "explicit"])
@pytest.mark.parametrize(("kind", "count"), FOUR)
def test_segments_sum_their_gradients(kind, count, axes):
    inside, outside = found(kind, count, "FSDP", axes, "swap_memory", "LSTM")
    assert set(inside) <= {"all-reduce", "reduce-scatter"}
    assert "all-gather" in outside


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("kind", ["v5e", "h100"])
def test_drivers_on_one_device(kind, driver):
    assert found(kind, 1, "data", "auto", driver, "LSTM") == ([], [])


def found(kind, count, *row):
    return collectives(compiled(devices(kind, count), *row))
