"""Runs a cell over the time axis of a batch of sequences.

This folder imports `_base`. It contains neither the equations of a cell nor a loop for
one kind of cells. The scan over single steps defines the results of every run. To
change the meaning of padding or of a reset, change this folder. A loop of `_loops/`
must then choose a scan until it supports the change.

A *driver* is a function such as `dynamic_rnn`. It checks its arguments (`arguments.py`)
and calls `run_cell` (`run_cell.py`), which uses three records, one after another:

1. `Given` (`given.py`) contains the checked arguments. A state may be None, which means
   zeros, and the mask may have gaps.
2. `Run` (`run.py`) contains the arrays that a loop reads. `prepared` (`prepare.py`)
   moves valid steps to the front of each row (`reorder.py`), fills in states, divides
   all rows over devices (`layout.py`), and checks one step (`first_step.py`). The
   field `steps` describes the time axis (`masking.py`), and contains no array that a
   loop differentiates.
3. `Choice` (`run.py`) contains the loop, and the reason why no faster loop runs. The
   scan over single steps (`scans.py`) is the reference. Each loop of `_loops/` runs
   whole sequences of one kind of cell; `loops.py` maps kinds of cells to loops.

`results_of` runs the loop, and returns the results in the user's structures.
`until_finished.py` and `bounded_loop.py` contain the loop of `raw_rnn` and of decoders.
These files use the following terms:

* A *row* is one sequence of the batch. At step t, a row is *finished* if `t >= length`.
  A step of a row is *valid* if the row is neither finished nor masked. At other steps,
  the row outputs zeros and keeps its state (`masking.py`).
* `steps_to_run` is the number of steps that TensorFlow's loop would run: the maximum
  length. During these steps, the loop is *running*, and leaves of the state that all
  rows share, such as a counter, are updated.
* A *stand-in* is a finite pair `(inputs, state)`, for example of the first step. In a
  finished row, the cell runs on the stand-in instead of the padding. The results are
  dropped, but without a stand-in, NaN in the padding would make gradients NaN.
* A *reset* replaces a row's state by its *reset state*, such as zeros, before a step.
* A *part* is consecutive steps, for example 64, that the backward pass recomputes
  together (`scans.py`), or that one device holds (`_loops/divided_time.py`).
* A *group* is a few consecutive steps that a scan runs or skips together.
* A *chunk* is consecutive steps of a linear recurrence or a matrix memory that are
  computed at once.
* A *span* is the steps of a row from one reset to the next.
* The *primals* of a loop are the arrays with respect to which the loop can be
  differentiated; `d_x` is the tangent of x, and `ct_x` is the cotangent of x. An
  argument is *perturbed* if its tangent is not zero.
"""
