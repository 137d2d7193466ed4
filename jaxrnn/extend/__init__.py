"""Base classes and functions for custom cells, wrappers and decoders.

`jaxrnn.contrib` is built from these names. The base classes `RNNCell`, `AffineCell`,
`LinearRecurrenceCell` and `FunctionCell` are in `jaxrnn` itself. This module adds:

* Hyperparameters: `fields` declares the fields of a cell and their checks.
* Cells: `SpecsCell` derives `init` and `apply` from `param_specs` and `step`.
  `scope_name` returns the name of a cell in profiles and checkpoints. `ReadOnly` marks
  a part of a state that steps read but never change. An `AffineCell` with standard
  `Equations` runs in the native loops.
* Matrix memories: a `MatrixRule` defines how a step writes and reads, and optionally
  computes all steps of a `Chunk` at once. `BareMemoryCell` runs a rule on projected
  inputs. `MatrixMemoryCell` also has its own projections.
* Wrappers: `ComposedCell` derives `apply` and the loops over all steps from one
  function, `compose`. `WrapperCell` has the sizes, the parameters and the zero state
  of the wrapped cell, and `ParamsWrapper` adds parameters. `check_rnn_cell` checks a
  field that holds a cell, and `vector_size` returns the size of a cell's output.
* Parameters: `affine_specs` declares a kernel and a bias, and `affine` applies them.
  `glorot_uniform` is TensorFlow's default initializer. `bias_initializer` selects the
  initializer of a bias. `at_least_float32` widens a dtype in which sums are computed.
* Steps: `check_step_inputs`, `check_state` and `check_params` check the arguments of a
  step. The `apply` of a `SpecsCell` calls all three.
* Loops: the `choose_loop` of a cell receives a `Run`, which holds the sequences and, as
  `Steps`, their time axis and valid steps. It returns a `Choice`.
* Functions that run cells: `map_sizes` reads a `state_size` or an `output_size`.
  `as_arrays`, `as_bool`, `as_count`, `as_lengths`, `check_function` and `check_key`
  check arguments. `concrete_or_none` returns the values of an array that is not traced.
* Errors: `expect` raises a ValueError or a TypeError that says which argument is wrong,
  what is expected, and what it got.
"""

# This module only imports public names from private folders, and contains no code.

from .._base.arguments import as_bool, as_count, check_function
from .._base.cell_keys import check_key
from .._base.errors import expect
from .._base.inputs import as_arrays
from .._base.math import at_least_float32, concrete_or_none
from .._base.modules import set_module as _set_module
from .._base.products import affine
from .._base.trees import ReadOnly, map_sizes
from .._cells.base import SpecsCell, check_rnn_cell, scope_name
from .._cells.composed import ComposedCell
from .._cells.equations import Equations
from .._cells.matrix.bare_memory import BareMemoryCell
from .._cells.matrix.cell import MatrixMemoryCell
from .._cells.matrix.rule import MatrixRule
from .._cells.params import affine_specs, bias_initializer, glorot_uniform
from .._cells.step_checks import check_params, check_state, check_step_inputs
from .._cells.wrappers.base import ParamsWrapper, WrapperCell, vector_size
from .._loops.memories.chunk import Chunk
from .._run.arguments import as_lengths
from .._run.masking import Steps
from .._run.run import Choice, Run
from . import fields

__all__ = [
    "BareMemoryCell", "Choice", "Chunk", "ComposedCell", "Equations",
    "MatrixMemoryCell", "MatrixRule", "ParamsWrapper", "ReadOnly", "Run", "SpecsCell",
    "Steps", "WrapperCell", "affine", "affine_specs", "as_arrays", "as_bool",
    "as_count", "as_lengths", "at_least_float32", "bias_initializer", "check_function",
    "check_key", "check_params", "check_rnn_cell", "check_state", "check_step_inputs",
    "concrete_or_none", "expect", "fields", "glorot_uniform", "map_sizes", "scope_name",
    "vector_size",
]  # fmt: skip

_set_module(__name__)
