"""One run of a cell over the time axis of a batch of sequences.

Imports `_base`. Never here: a cell's equations, or a loop for one kind of cells. The
scan over single steps is the semantics; whoever changes what padding or a reset means
changes this folder, and loops decline until they follow.

A driver (a function such as `dynamic_rnn`) checks its arguments (`arguments.py`) and
calls `run_cell` (`run_cell.py`). A run has three records, one after another:

1. `Given` (`given.py`): what the driver was given. A state may be None, for zeros, and
   the mask may have gaps.
2. `Run` (`run.py`): what a loop reads. `prepared` makes it from what was given
   (`prepare.py`): it moves valid steps to the front of each row (`reorder.py`), fills
   in states, lays all rows out over devices (`layout.py`), and checks one step
   (`first_step.py`). Its `Steps` describe the time axis (`masking.py`), and hold
   nothing that a loop differentiates.
3. `Choice` (`run.py`): the loop, and why no faster loop runs. The scan over single
   steps (`scans.py`) is the reference; the loops of `_loops/` run whole sequences of
   one kind of cell, which a table names (`loops.py`).

`results_of` runs the loop, and returns what the user expects. `until_finished.py` and
`bounded_loop.py` are the loop of `raw_rnn` and of decoders. These files use the
following terms:

* A *row* is one entry of the batch. At step t, a row is *finished* if `t >= length`. A
  step of a row is *valid* unless the row is finished or a mask says otherwise. At other
  steps, a row outputs zeros and keeps its state (`masking.py`).
* `steps_to_run` is the number of steps that TensorFlow's loop would run, which is the
  maximum length. During these steps, the loop is *running*, and leaves of the state
  that all rows share are updated.
* A *stand-in* is a finite pair `(inputs, state)` on which the cell runs in finished
  rows, so that the dropped results of these rows cannot put NaN into gradients.
* A *reset* gives a row its *reset state* before a step.
* A *part* is consecutive steps of a run that the backward pass recomputes (`scans.py`),
  or that one device holds (`_loops/divided_time.py`). A *group* of steps is run or
  skipped by a scan as a whole. A *chunk* of a linear recurrence or a matrix memory is
  computed at once. Its *spans* are the steps of a row from one reset to the next.
* The *primals* of a loop are the arrays with respect to which the loop can be
  differentiated; `d_x` is the tangent of x, and `ct_x` is the cotangent of x. An
  argument is *perturbed* if its tangent is not zero.
"""
