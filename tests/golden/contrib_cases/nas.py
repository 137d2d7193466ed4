"""`NASCell`."""

from ..contrib_specs import cell, each, half

_CELLS = {
    "nas": cell("NASCell", 4),
    "nas_bias": cell("NASCell", 4, use_bias=True),
    "nas_proj": cell("NASCell", 4, 2, True),
}
CASES = each("nas", _CELLS) + half("nas", {"nas_proj": _CELLS["nas_proj"]})
