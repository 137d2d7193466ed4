"""`ConvLSTMCell` and its classes for one, two and three axes."""

from ..contrib_specs import cell, each, half, shape

_LINE = {"input_shape": [5, 2], "output_channels": 3, "kernel_shape": [3]}
_PICTURE = {"input_shape": [3, 4, 2], "output_channels": 2, "kernel_shape": [3, 2]}
_VOLUME = {"input_shape": [2, 3, 2, 2], "output_channels": 2, "kernel_shape": [2, 1, 3]}
_LINES = {
    "conv": cell("ConvLSTMCell", 1, [5, 2], 3, [3], forget_bias=0.5),
    "conv1d": cell("Conv1DLSTMCell", **_LINE),
}
_PICTURES = {
    "conv2d": cell("Conv2DLSTMCell", **_PICTURE),
    "conv2d_no_bias": cell("Conv2DLSTMCell", **_PICTURE, use_bias=False),
}
_VOLUMES = {"conv3d": cell("Conv3DLSTMCell", **_VOLUME)}
CASES = (
    each("conv_lstm", _LINES, inputs=shape(5, 2))
    + each("conv_lstm", _PICTURES, inputs=shape(3, 4, 2))
    + each("conv_lstm", _VOLUMES, inputs=shape(2, 3, 2, 2))
    + half("conv_lstm", {"conv1d": _LINES["conv1d"]}, ["float16"], inputs=shape(5, 2))
)
