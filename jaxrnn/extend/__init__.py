"""Parts for custom cells, wrappers and decoders; `jaxrnn.contrib` is built on them.

The base classes `RNNCell`, `AffineCell`, `LinearRecurrenceCell` and `FunctionCell` are
in `jaxrnn` itself. This module adds what several cells have in common:

* Hyperparameters: `fields` declares the fields of a cell and their checks.
  `Hyperparameters` is the base of a value that is compared in the same way but is not a
  cell.
* Cells: `SpecsCell` derives `init` and `apply` from `param_specs` and `step`.
  `scope_name` is the name of a cell in profiles and checkpoints.
* Wrappers: `WrapperCell` has the sizes, the parameters and the zero state of the
  wrapped cell, and `ParamsWrapper` adds parameters. `check_rnn_cell` checks a field
  that holds a cell, `vector_size` returns the size of its output, and `fold_in` derives
  a key for it.
* Parameters: `affine_specs` declares a kernel and a bias, and `affine` applies them.
  `glorot_uniform` is TensorFlow's default initializer. `bias_initializer` selects the
  initializer of a bias, `param_dtype` the dtype of new parameters, and
  `at_least_float32` the dtype of sums.
* Steps: `check_step_inputs`, `check_state`, `check_params` and `check_one_dtype` check
  the arguments of a step. A `SpecsCell` calls them.
* Decoders and drivers: `check_is_cell` checks a bound cell, `cell_at_step` selects its
  key for a step, and `call_start` prepares a state that has `ReadOnly` parts.
  `map_sizes` and `size_shapes` read a `state_size` or an `output_size`.
* Errors: `check_value` raises an `InvalidValue` and `check_type` an `InvalidType`, both
  with the same form of message; `describe` describes a value and `named_leaves` names
  the leaves of a nest for a message. `as_arrays`, `as_bool`, `as_count` and
  `as_lengths` check and convert arguments. `check_function` and `check_key` check
  others. `concrete_or_none` returns the values of an array that is not traced.

An `InvalidValue` is a ValueError and an `InvalidType` is a TypeError. If a function or
class of this package was called, its name is put before the message.
"""

from .._base.arguments import (
    as_bool as as_bool,
    as_count as as_count,
    check_function as check_function,
    check_is_cell as check_is_cell,
    check_type as check_type,
    check_value as check_value,
)
from .._base.boundary import export as _export
from .._base.cell_keys import (
    cell_at_step as cell_at_step,
    check_key as check_key,
    fold_in as fold_in,
)
from .._base.errors import (
    InvalidType as InvalidType,
    InvalidValue as InvalidValue,
    describe as describe,
)
from .._base.inputs import as_arrays as as_arrays
from .._base.lengths import as_lengths as as_lengths
from .._base.math import (
    affine as affine,
    at_least_float32 as at_least_float32,
    concrete_or_none as concrete_or_none,
)
from .._base.read_only import ReadOnly as ReadOnly
from .._base.trees import (
    map_sizes as map_sizes,
    named_leaves as named_leaves,
    size_shapes as size_shapes,
)
from .._cells.base import (
    SpecsCell as SpecsCell,
    check_rnn_cell as check_rnn_cell,
    param_dtype as param_dtype,
    scope_name as scope_name,
)
from .._cells.hyperparameters import Hyperparameters as Hyperparameters
from .._cells.initializers import (
    affine_specs as affine_specs,
    bias_initializer as bias_initializer,
    glorot_uniform as glorot_uniform,
)
from .._cells.step_checks import (
    check_one_dtype as check_one_dtype,
    check_params as check_params,
    check_state as check_state,
    check_step_inputs as check_step_inputs,
)
from .._drivers.first_step import call_start as call_start
from .._wrappers.base import (
    ParamsWrapper as ParamsWrapper,
    WrapperCell as WrapperCell,
    vector_size as vector_size,
)
from . import fields as fields

_export(globals(), names_errors=False)
