"""TensorFlow's contrib: cells of `tf.contrib.rnn`, attention and decoders of seq2seq.

A cell has the constructor of TensorFlow's and the names of its variables, so that
scripts port line by line and old checkpoints drop in.

Cells: `NASCell`.
"""

from .._base.public import set_public_module as _set_public_module
from ._nas import NASCell as NASCell

_set_public_module(globals())
