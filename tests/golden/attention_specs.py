"""Attention around a cell: the cases that `make_attention.py` records, as plain data.

A case names a wrapped cell, mechanisms with their memories, and what the wrapper is
given besides. All run over `[3, 4, 3]` inputs by `dynamic_rnn`.
"""

BATCH, TIME, DEPTH = 3, 4, 3
MEMORIES = ((5, 6), (7, 2))
"""The steps and the depth of the first memory, and of the second."""
LENGTHS = ([5, 1, 3], [2, 7, 4])

_MECHANISMS = {
    "luong": ("LuongAttention", {}),
    "luong_scale": ("LuongAttention", {"scale": True}),
    "bahdanau": ("BahdanauAttention", {}),
    "bahdanau_norm": ("BahdanauAttention", {"normalize": True}),
    "luong_hardmax": ("LuongAttention", {"probability_fn": "hardmax"}),
    "bahdanau_mask": ("BahdanauAttention", {"score_mask_value": -2.0}),
    "luong_key_value": ("LuongAttention", {"custom_key_value_fn": "swap_signs"}),
    "luong_recursive": (
        "LuongMonotonicAttention",
        {"scale": True, "mode": "recursive", "score_bias_init": -0.5},
    ),
    "luong_parallel": ("LuongMonotonicAttention", {"mode": "parallel"}),
    "luong_hard": ("LuongMonotonicAttention", {"mode": "hard", "scale": True}),
    "bahdanau_recursive": ("BahdanauMonotonicAttention", {"mode": "recursive"}),
    "bahdanau_parallel": ("BahdanauMonotonicAttention", {"normalize": True}),
    "bahdanau_hard": ("BahdanauMonotonicAttention", {"mode": "hard"}),
}


def _case(name, mechanisms, **fields):
    case = {
        "name": name,
        "cell": ("LSTMCell", 4),
        "mechanisms": [_MECHANISMS[m] for m in mechanisms],
        "several": len(mechanisms) > 1,
        "wrapper": {},
        "memory_lengths": False,
        "lengths": None,
        "given_cell_state": False,
        "dtype": "float64",
    }
    return case | fields


def _each_mechanism():
    for index, name in enumerate(_MECHANISMS):
        # Contrib's monotonic mechanisms are written for float32.
        only32 = "Monotonic" in _MECHANISMS[name][0]
        yield _case(
            f"{name}-whole",
            [name],
            wrapper={"attention_layer_size": 5} if index % 2 else {},
            dtype="float32",
        )
        yield _case(
            f"{name}-ragged",
            [name],
            wrapper={"attention_layer_size": 5, "output_attention": index % 3 > 0},
            memory_lengths=True,
            lengths=[4, 0, 2] if index % 2 else None,
            given_cell_state=index % 2 == 0,
            dtype="float32" if only32 else "float64",
        )


CASES = [
    *_each_mechanism(),
    _case("gru", ["luong"], cell=("GRUCell", 4), memory_lengths=True),
    _case("history", ["bahdanau"], wrapper={"alignment_history": True}),
    _case(
        "two",
        ["luong_scale", "bahdanau"],
        wrapper={"attention_layer_size": [5, 2]},
        memory_lengths=True,
    ),
    _case("two_alike", ["luong_scale", "luong_scale"], lengths=[4, 1, 3]),
    _case(
        "two_with_history",
        ["bahdanau_norm", "luong_hard"],
        wrapper={"alignment_history": True, "output_attention": False},
        dtype="float32",
    ),
    _case("one_of_a_list", ["luong"], several=True),
    _case(
        "input_fn",
        ["luong"],
        wrapper={"cell_input_fn": "sum_of_halves"},
        lengths=[4] * 3,
    ),
    _case("attention_fn", ["bahdanau"], wrapper={"attention_fn": "sharpened"}),
    _case("half", ["luong_scale"], memory_lengths=True, dtype="float16"),
]
