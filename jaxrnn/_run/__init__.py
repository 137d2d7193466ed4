"""One run of a cell over the time axis of a batch of sequences.

A driver (a function such as `dynamic_rnn`) checks its arguments (`arguments.py`) and
creates a `Run` (`run.py`): inputs, an initial state, and `Steps`, which describe the
time axis (`masking.py`). `run_cell.py` completes the run, checks one step
(`first_step.py`), chooses the loop, and runs it: the scan over single steps
(`scans.py`), which is the reference, or a loop that runs whole sequences of one kind of
cell (`_cells/affine/`, `_cells/linear/`, `_cells/matrix/`). Steps are moved within rows
by `reorder.py`. Other ways to run a cell: `divided_time.py`, time on several devices;
`until_finished.py` and `bounded_loop.py`, the loop of `raw_rnn` and of decoders. These
files use the following terms:

* A *row* is one entry of the batch. At step t, a row is *finished* if `t >= length`,
  otherwise *alive*, unless the step is masked. A finished row outputs zeros and keeps
  its state (`masking.py`).
* `steps_to_run` is the number of steps that TensorFlow's loop would run, which is the
  maximum length. During these steps, the loop is *running*, and leaves of the state
  that all rows share are updated.
* A *stand-in* is a finite pair `(inputs, state)` on which the cell runs in finished
  rows, so that the dropped results of these rows cannot put NaN into gradients.
* A *restart* gives a row its *restart state* before a step: a reset. `Steps` may hold
  the steps of the restarts without the restart states, which a loop then takes as an
  argument to differentiate.
* A *part* is consecutive steps of a run that the backward pass recomputes (`scans.py`),
  or that one device holds (`divided_time.py`). A *group* of steps is run or skipped by
  a scan as a whole. A *chunk* of a linear recurrence or a matrix memory is computed at
  once. Its *spans* are the steps of a row from one restart to the next.
* The *primals* of a loop are the arrays with respect to which the loop can be
  differentiated; `d_x` is the tangent of x, and `ct_x` is the cotangent of x. An
  argument is *perturbed* if its tangent is not zero.
"""
