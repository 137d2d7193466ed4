"""The loops over the time axis of a batch of sequences.

A driver (a function such as `dynamic_rnn`) creates a `Run`: inputs, an initial state,
and `Steps`, which describe the time axis (`steps.py`). `choice.py` chooses the loop:
the scan over single steps (`scans.py`), which is the reference, or a loop that runs
whole sequences of one kind of cell. The files of this folder use these terms:

* A *row* is one entry of the batch. At step t, a row is *finished* if `t >= length`,
  otherwise *alive*. A finished row outputs zeros and keeps its state (`masking.py`).
* The *longest* length is the number of steps that TensorFlow's loop would run. During
  these steps, the loop is *running*, and leaves of the state that all rows share are
  updated.
* A *stand-in* is a finite pair `(inputs, state)` on which the cell runs in finished
  rows, so that the dropped results of these rows cannot put NaN into gradients.
* A *restart* gives a row a new state before a step: a reset, or the first step of a
  sequence in a packed row. `Steps` may hold the steps of the restarts without the
  *restart states*, which a loop then takes as an argument to differentiate.
* A *segment* is a part of a run that the backward pass recomputes (`scans.py`). In
  `matrix_memory.py`, a *segment* instead consists of the steps of a chunk from one
  restart to the next. A *chunk* is a part of a scan that is run or skipped as a whole
  (`scans.py`), or a part of a run over a matrix memory that is computed at once
  (`matrix_memory.py`). A *block* is a part of a linear recurrence that is computed at
  once (`linear_recurrence.py`).
* The *primals* of a loop are the arrays with respect to which the loop can be
  differentiated; `d_x` is the tangent of x, and `ct_x` is the cotangent of x. An
  argument is *perturbed* if its tangent is not zero.
"""
