"""jaxrnn by XLA's loop, as it runs where jaxrnn-native is not installed."""

import functools

from . import _ours, jaxrnn

USES = _ours.PACKAGES

build = functools.partial(jaxrnn.build, implementation="xla")
