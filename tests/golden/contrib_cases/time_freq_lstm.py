"""`TimeFreqLSTMCell`: in a loop with one window, with more a step alone."""

from ..contrib_specs import case, cell, each, half, shape

_FAMILY = "time_freq_lstm"
_ALL = {"use_peepholes": True, "cell_clip": 0.4, "num_unit_shards": 2}
_ONE = {
    "time_freq": cell("TimeFreqLSTMCell", 4, feature_size=3),
    "time_freq_all": cell("TimeFreqLSTMCell", 4, feature_size=3, **_ALL),
}
_MORE = cell("TimeFreqLSTMCell", 2, feature_size=3, frequency_skip=2, **_ALL)
_STEP = {"inputs": shape(8), "initial_state": "given", "state": shape(12)}
CASES = (
    each(_FAMILY, _ONE)
    + half(_FAMILY, {"time_freq_all": _ONE["time_freq_all"]}, ["float16"])
    + [
        case(
            f"time_freq_windows-step-{short}",
            _FAMILY,
            _MORE | {"ours": {"num_windows": 3}},
            "cell",
            dtype=dtype,
            **_STEP,
        )
        for short, dtype in (("f32", "float32"), ("f64", "float64"))
    ]
)
