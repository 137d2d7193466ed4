"""Error messages: the argument, the leaf, the given value and the fix."""

import collections
import dataclasses
import re
from collections.abc import Callable

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    AffineCell,
    BasicRNNCell,
    DeviceWrapper,
    DropoutWrapper,
    FunctionCell,
    GRUCell,
    LSTMCell,
    LSTMStateTuple,
    MultiRNNCell,
    ParamSpec,
    ResidualWrapper,
    Stage,
    TensorShape,
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    memory,
    pack_sequences,
)

F32 = jnp.float32
X = np.ones((4, 5, 3), np.float32)
ZEROS = np.zeros((4, 2), np.float32)
HaikuState = collections.namedtuple("LSTMState", "hidden cell")
KEYS = jax.random.split(jax.random.key(0))


def bound(cell):
    return helpers.bound(cell, X.shape[-1], "float32")


RNN, GRU, LSTM = (bound(c(2)) for c in (BasicRNNCell, GRUCell, LSTMCell))
STACK = bound(MultiRNNCell([GRUCell(2), GRUCell(2)]))


def shared_cell():
    """Two layers that share one cell, with separate parameters."""
    stack = MultiRNNCell([GRUCell(2)] * 2)
    return dynamic_rnn(stack.bind(STACK.params), X, dtype=F32)


def keep(params, inputs, state, key=None):
    return inputs, state


@dataclasses.dataclass(frozen=True, eq=False)
class Custom(AffineCell):
    """A cell with one stage, whose parts may be wrong."""

    enters: Callable = lambda h: (h, h)
    updates: Callable = lambda z, h: (z, z)
    columns: int = 2

    state_size = output_size = 2

    def enter(self, state):
        return self.enters(state)

    @property
    def stages(self):
        update = lambda params, z, carry: self.updates(z, carry)
        return (Stage(update, 2, self.columns, jax.nn.initializers.zeros, None),)


STAGE = Stage(lambda params, z, h: (z, z), 2, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class OfStages(AffineCell):
    """A cell with the given stages."""

    given: object
    state_size: object = 2

    stages = property(lambda self: self.given)
    output_size = 2


class TwoCoefficients(jaxrnn.MinGRUCell):
    """A linear recurrence that forgets to return `rest`."""

    def coefficients(self, params, inputs):
        return inputs, inputs


def step_of(cell):
    return dynamic_rnn(bound(cell), X, dtype=F32)


def stepping(state):
    """A cell whose new state is `state(old_state)`."""
    return FunctionCell(lambda p, x, s, key=None: (x, state(s)), 3, 3).bind({})


def putting_out(output, size=3):
    """A cell whose output is `output(inputs)`."""
    return FunctionCell(lambda p, x, s, key=None: (output(x), s), 3, size).bind({})


class Seven(memory.Strategy):
    def plan(self, time):
        return 7


REFUSALS = {
    # dynamic_rnn's arguments
    "cell": (TypeError, "`cell` must be an RNNCell, got 3, which lacks `output_size`, "
             "`state_size`, `zero_state` or `get_initial_state`",
             lambda: dynamic_rnn(3, X, dtype=F32)),
    "cell_unbound": (TypeError, "must be a bound cell, got the unbound GRUCell\\(.*Bind it to its parameters: `cell.bind\\(params\\)`",
                     lambda: dynamic_rnn(GRUCell(2), X, dtype=F32)),
    "cell_params": (TypeError, r"`cell` must be an RNNCell, got dict, .*`__call__`. Bind parameters to the cell they belong to: `cell.bind\(params\)`",
                    lambda: dynamic_rnn(GRU.params, X, dtype=F32)),
    "cells": (TypeError, "`cell` must be an RNNCell, got list, .*Combine several cells with `MultiRNNCell`",
              lambda: dynamic_rnn([GRU, GRU], X, dtype=F32)),
    "cells_of_one_layer": (TypeError, r"`cell_fw` must be an RNNCell, got tuple, .*For one layer, pass `cell_fw\[0\]`\.",
                           lambda: bidirectional_dynamic_rnn((GRU,), (GRU,), X, dtype=F32)),
    "inputs_scalar": (ValueError, r"got float32\[\]. ",
                      lambda: dynamic_rnn(GRU, jnp.float32(1), dtype=F32)),
    "unknown": (TypeError, "^dynamic_rnn: `foo` is not an argument.$",
                lambda: dynamic_rnn(GRU, X, foo=3)),
    "unknown_done": (TypeError, "`done` is not an argument. It is `resets` here.",
                     lambda: dynamic_rnn(GRU, X, dtype=F32, done=X[..., 0] > 0)),
    "no_dtype": (ValueError, "dtype must be specified if there is no `initial_state`",
                 lambda: dynamic_rnn(GRU, X)),
    "bad_dtype": (TypeError, "`dtype` must name a dtype, got 'float33'",
                  lambda: dynamic_rnn(GRU, X, dtype="float33")),
    "inputs_none": (ValueError, "`inputs` must be an array: None values not supported",
                    lambda: dynamic_rnn(GRU, None, dtype=F32)),
    "inputs_empty": (ValueError, r"`inputs` must hold at least one array, got \[\]",
                     lambda: dynamic_rnn(GRU, [], dtype=F32)),
    "inputs_empty_as_in_tf": (IndexError, "`inputs` must hold at least one array",
                              lambda: dynamic_rnn(GRU, [], dtype=F32)),
    "inputs_leaf_none": (ValueError, r"`inputs\['b'\]` must be an array",
                         lambda: dynamic_rnn(GRU, {"a": X, "b": None}, dtype=F32)),
    "inputs_rank_1": (ValueError, r"rank at least 3.* got float32\[4\]\. .*Without a depth axis, pass `inputs\[..., None\]`.$",
                      lambda: dynamic_rnn(GRU, X[:, 0, 0], dtype=F32)),
    "inputs_rank_2": (ValueError, r"rank at least 3, \[batch, time, ...\]",
                      lambda: dynamic_rnn(GRU, X[:, 0], dtype=F32)),
    "inputs_one_sequence": (ValueError, r"For one sequence \[time, depth\], pass `inputs\[None\]`. Without a depth axis, pass `inputs\[..., None\]`.$",
                            lambda: dynamic_rnn(GRU, X[0], dtype=F32)),
    "inputs_one_sequence_time_major": (ValueError, r"For one sequence \[time, depth\], pass `inputs\[:, None\]`. Without",
                                       lambda: dynamic_rnn(GRU, X[0], dtype=F32, time_major=True)),
    "inputs_lists": (ValueError, "Convert it to one array with jnp.asarray",
                     lambda: dynamic_rnn(GRU, X.tolist(), dtype=F32)),
    "inputs_strings": (TypeError, "`inputs` must be an array, got 'abc'",
                       lambda: dynamic_rnn(GRU, "abc", dtype=F32)),
    "inputs_without_depth": (ValueError, r"got float32\[4, 5\]. .* Without a depth axis, pass `inputs\['a'\]\[..., None\]`",
                             lambda: dynamic_rnn(GRU, {"a": X[..., 0]}, dtype=F32)),
    "inputs_ids": (ValueError, r"got int64\[4, 5\]. Embed integer ids, or pass `ids\[..., None\]`",
                   lambda: dynamic_rnn(GRU, X[..., 0].astype(int), dtype=F32)),
    "inputs_of_several_lengths": (ValueError, r"`inputs\[0\]` must .* got float32\[5, 3\]\. .* pad it. For sequences of different lengths, use `pack_sequences`",
                                  lambda: dynamic_rnn(GRU, [X[0], X[1, :3]], dtype=F32)),
    "inputs_time": (ValueError, r"Time steps must be the same.*`inputs\[1\]` is float32\[4, 4, 3\]",
                    lambda: dynamic_rnn(GRU, (X, X[:, 1:]), dtype=F32)),
    "inputs_batch": (ValueError, r"Batch size must be the same.*`inputs\[1\]` is float32\[3, 5, 3\]",
                     lambda: dynamic_rnn(GRU, (X, X[1:]), dtype=F32)),
    "inputs_time_major": (ValueError, r"Batch size.*\[time, batch, ...\]",
                          lambda: dynamic_rnn(GRU, (X, X[:, 1:]), dtype=F32, time_major=True)),
    "inputs_integers": (ValueError, "only supports floating point, got `inputs` of int32",
                        lambda: dynamic_rnn(GRU, X.astype(np.int32), dtype=F32)),
    "dtype_integer": (ValueError, "only supports floating point, got `state` of int32",
                      lambda: dynamic_rnn(GRU, X, dtype=jnp.int32)),
    "inputs_other_dtype": (TypeError, r"must have the dtype of the inputs \(float64\)",
                           lambda: dynamic_rnn(GRU, X.astype(np.float64), dtype=jnp.float64)),
    "lengths_scalar": (ValueError, r"must be a vector of length batch_size \(4\)",
                       lambda: dynamic_rnn(GRU, X, 3, dtype=F32)),
    "lengths_scalar_fix": (ValueError, r"got int64\[\]. `np.full\(4, n\)`",
                           lambda: dynamic_rnn(GRU, X, 3, dtype=F32)),
    "lengths_masked": (TypeError, r"`sequence_length` must be an array without a mask, got a masked int64\[4\]",
                       lambda: dynamic_rnn(GRU, X, np.ma.ones(4, int), dtype=F32)),
    "inputs_masked": (TypeError, r"`inputs\['a'\]` must be an array without a mask",
                      lambda: dynamic_rnn(GRU, {"a": np.ma.asarray(X)}, dtype=F32)),
    "inputs_one_letter": (TypeError, "`inputs` must be an array, got 'q'",
                          lambda: dynamic_rnn(GRU, "q", dtype=F32)),
    "inputs_long": (ValueError, r"`inputs` must have at most 2147483647 steps and rows, .* got float32\[1, 2147483648, 3\]",
                    lambda: jax.eval_shape(lambda x: dynamic_rnn(GRU, x, dtype=F32),
                                           jax.ShapeDtypeStruct((1, 2**31, 3), F32))),
    "inputs_packed": (TypeError, "dynamic_rnn: `inputs` must be padded, got PackedSequences. Use `packed_rnn`",
                      lambda: dynamic_rnn(GRU, pack_sequences(X, [1, 2, 3, 4]), dtype=F32)),
    "inputs_packed_both": (TypeError, "bidirectional_dynamic_rnn: `inputs` must be padded",
                           lambda: bidirectional_dynamic_rnn(GRU, GRU, pack_sequences(X, [1] * 4), dtype=F32)),
    "strategy": (TypeError, "`plan` must return a `CheckpointPlan`, got 7. `CheckpointPlan\\(",
                 lambda: dynamic_rnn(GRU, X, dtype=F32, swap_memory=Seven())),
    "lengths_rank_2": (ValueError, r"must be a vector of length batch_size.*Pass `sequence_length\[:, 0\]`",
                       lambda: dynamic_rnn(GRU, X, [[1]] * 4, dtype=F32)),
    "carry_first": (TypeError, r"`sequence_length` must hold integers, got float32\[4, 5, 3\]. Inputs come first: `dynamic_rnn\(cell, inputs, lengths, init",
                    lambda: dynamic_rnn(GRU, ZEROS, X)),
    "lengths_mask": (TypeError, r"must hold integers, got bool\[4, 5\]. Pass a mask .* without gaps are `mask.sum\(-1\)`",
                     lambda: dynamic_rnn(GRU, X, X[..., 0] > 0, dtype=F32)),
    "lengths_bools": (TypeError, r"must hold integers, got bool\[4\]. Cast it to jnp.int32, if you mean lengths of 0 and 1",
                      lambda: dynamic_rnn(GRU, X, [True, False, True, False], dtype=F32)),
    "lengths_traced_bools": (TypeError, r"must hold integers, got bool\[4\]. Cast it",
                             lambda: jax.jit(lambda n: dynamic_rnn(GRU, X, n, dtype=F32))(X[:, 0, 0] > 0)),
    "lengths_count": (ValueError, r"length batch_size \(4\), one entry per row, got int64\[1\]",
                      lambda: dynamic_rnn(GRU, X, [1], dtype=F32)),
    "lengths_floats": (TypeError, r"must hold integers, got float64\[4\]. Cast it",
                       lambda: dynamic_rnn(GRU, X, [1.0, 2, 3, 4], dtype=F32)),
    "lengths_strings": (TypeError, "must hold integers",
                        lambda: dynamic_rnn(GRU, X, list("abcd"), dtype=F32)),
    "iterations_negative": (TypeError, "`parallel_iterations` must be at least 0, got -1",
                            lambda: dynamic_rnn(GRU, X, dtype=F32, parallel_iterations=-1)),
    "iterations_float": (TypeError, "`parallel_iterations` must be an integer, got 1.5",
                         lambda: dynamic_rnn(GRU, X, dtype=F32, parallel_iterations=1.5)),
    "iterations_as_in_tf": (AssertionError, "`parallel_iterations` must be an integer",
                            lambda: dynamic_rnn(GRU, X, dtype=F32, parallel_iterations=1.5)),
    "swap_memory": (TypeError, "`swap_memory` must be True, False or a strategy of `jaxrnn.memory`, got 'host'",
                    lambda: dynamic_rnn(GRU, X, dtype=F32, swap_memory="host")),
    "time_major": (TypeError, "`time_major` must be True or False, got 1",
                   lambda: dynamic_rnn(GRU, X, dtype=F32, time_major=1)),
    "scope": (TypeError, "`scope` must be a string, got 3",
              lambda: dynamic_rnn(GRU, X, dtype=F32, scope=3)),
    "cell_class": (TypeError, "got the class LSTMCell. Create one and bind it",
                   lambda: dynamic_rnn(LSTMCell, X, dtype=F32)),
    "lengths_dtype": (TypeError, "pass a dtype as `dtype=`", lambda: dynamic_rnn(GRU, X, jnp.float32)),
    "lengths_ragged": (ValueError, r"one integer for each row, got \[\[1\], \[2, 3\]\]",
                       lambda: dynamic_rnn(GRU, X, [[1], [2, 3]], dtype=F32)),
    "dtype_object": (TypeError, "`dtype` must name a dtype", lambda: dynamic_rnn(GRU, X, dtype=object)),
    "inputs_objects": (TypeError, "`inputs` must be an array",
                       lambda: dynamic_rnn(GRU, np.full((4, 5, 3), None), dtype=F32)),
    # The state
    "state_rows": (ValueError, r"`initial_state` must have 4 rows or be a scalar, got float32\[3\]",
                   lambda: dynamic_rnn(FunctionCell(lambda p, x, s, key=None: (x, s), TensorShape([]), 3).bind({}),
                                       X, [1] * 4, np.ones(3, np.float32))),
    "state_dict": (ValueError, r"GRUCell|LSTMCell: `state` must have the structure LSTMStateTuple",
                   lambda: LSTM(X[:, 0], {"c": ZEROS, "h": ZEROS})),
    "state_none": (ValueError, r"`initial_state\[0\]` must be an array",
                   lambda: dynamic_rnn(STACK, X, initial_state=(None, ZEROS))),
    "state_kind": (TypeError, "`initial_state` must be an array, got 'zeros'",
                   lambda: dynamic_rnn(GRU, X, initial_state="zeros")),
    "state_batch": (ValueError, r"`state` must have shape \(4, 2\), got float32\[3, 2\]",
                    lambda: dynamic_rnn(GRU, X, initial_state=ZEROS[1:])),
    "state_one_row": (ValueError, r"`state` must have shape \(4, 2\), got float32\[1, 2\]",
                      lambda: dynamic_rnn(GRU, X, [1] * 4, initial_state=ZEROS[:1])),
    "state_width": (ValueError, r"`state\[1\]` must have shape \(4, 2\), got float32\[4, 1\]",
                    lambda: dynamic_rnn(LSTM, X, initial_state=(ZEROS, ZEROS[:, 1:]))),
    "state_array_for_lstm": (TypeError, "`state` must be a tuple of 2 arrays",
                             lambda: dynamic_rnn(LSTM, X, initial_state=ZEROS)),
    "state_tuple_for_rnn": (ValueError, r"`state` must be one array \[batch, 2\], got tuple",
                            lambda: dynamic_rnn(RNN, X, initial_state=(ZEROS, ZEROS))),
    "state_three_for_lstm": (ValueError, "`state` must be a tuple of 2 arrays.* got 3 arrays",
                             lambda: dynamic_rnn(LSTM, X, initial_state=(ZEROS,) * 3)),
    "state_too_many": (ValueError, "`state` must be a tuple of 2 states.* got 3 entries",
                       lambda: dynamic_rnn(STACK, X, initial_state=(ZEROS,) * 3)),
    "state_too_few": (IndexError, "`state` must be a tuple of 2 states.* got 1 entries",
                      lambda: dynamic_rnn(STACK, X, initial_state=(ZEROS,))),
    "state_of_other_fields": (ValueError, r"got LSTMState\(hidden=\*, cell=\*\)",
                              lambda: dynamic_rnn(LSTM, X, initial_state=HaikuState(ZEROS, ZEROS))),
    "state_plain_tuple": (TypeError, r"must have the structure \(\*, \*\), got LSTMStateTuple",
                          lambda: dynamic_rnn(LSTM, X, [1] * 4, initial_state=(ZEROS, ZEROS))),
    "state_dtypes_differ": (ValueError, r"`initial_state.c` float32\[4, 2\], `initial_state.h` bfloat16",
                            lambda: dynamic_rnn(LSTM, X, initial_state=LSTMStateTuple(
                                ZEROS, jnp.zeros((4, 2), jnp.bfloat16)))),
    "state_dtype": (TypeError, "must share one dtype",
                    lambda: dynamic_rnn(GRU, X, initial_state=ZEROS.astype(np.float64))),
    # The results of a step
    "step_structure": (ValueError, r"the state that `cell` returns must have the structure \*, got \(\*, \*\)",
                       lambda: dynamic_rnn(stepping(lambda s: (s, s)), X, dtype=F32)),
    "step_structure_cell": (ValueError, r"must have the structure \*, got \(\*, \*\). An initial state must have the structure",
                            lambda: dynamic_rnn(stepping(lambda s: (s, s)), X, initial_state=X[:, 0])),
    "step_structure_state": (ValueError, r"must have the structure \(\*, \*\), got \*. An initial state must have the structure",
                             lambda: dynamic_rnn(stepping(lambda s: s[0]), X, initial_state=(X[:, 0], X[:, 0]))),
    "step_shape": (ValueError, r"keep the shapes of its state, got `state` float32\[4, 3\] before and float32\[4, 1\]",
                   lambda: dynamic_rnn(stepping(lambda s: s[:, :1]), X, dtype=F32)),
    "step_dtype": (TypeError, "type should remain constant.*bfloat16.*Cast inside the cell",
                   lambda: dynamic_rnn(stepping(lambda s: s.astype(jnp.bfloat16)), X, dtype=F32)),
    "step_output_dtype": (TypeError, "`output` of `cell` must have dtype float32, got bfloat16.*dtype=jnp.bfloat16",
                          lambda: dynamic_rnn(putting_out(lambda x: x.astype(jnp.bfloat16)), X, dtype=F32)),
    "step_output_shape": (ValueError, r"`output` of `cell` must have shape \(4, 3\) to match `output_size`, got float32\[4, 1\]",
                          lambda: dynamic_rnn(putting_out(lambda x: x[:, :1]), X, dtype=F32)),
    "step_output_leaves": (ValueError, r"see `output_size`\) must have the structure \*, got \(\*, \*\)",
                           lambda: dynamic_rnn(putting_out(lambda x: (x, x)), X, dtype=F32)),
    "step_output_kind": (TypeError, r"must have the structure \(\*, \*\), got \[\*, \*\]",
                         lambda: dynamic_rnn(putting_out(lambda x: [x, x], (3, 3)), X, [1] * 4, dtype=F32)),
    "step_returns_one": (ValueError, r"must return a pair \(output, new_state\); it returned",
                         lambda: dynamic_rnn(FunctionCell(lambda p, x, s, key=None: x, 3, 3).bind({}), X, dtype=F32)),
    "step_returns_three": (ValueError, r"must return a pair \(output, new_state\); it returned \(\*, \*, \*\), .* Return the arrays of the state as one nest",
                           lambda: dynamic_rnn(FunctionCell(lambda p, x, s, key=None: (x, s, s), 3, 3).bind({}), X, dtype=F32)),
    # Bidirectional
    "cell_bw": (TypeError, "bidirectional_dynamic_rnn: `cell_bw` must be a bound cell, got the unbound GRUCell.*`cell_bw.bind",
                lambda: bidirectional_dynamic_rnn(GRU, GRUCell(2), X, dtype=F32)),
    "one_state_only": (ValueError, "bidirectional_dynamic_rnn: dtype must be specified.*`initial_state` is `initial_state_bw`",
                       lambda: bidirectional_dynamic_rnn(GRU, GRU, X, initial_state_fw=ZEROS)),
    "two_reset_states": (TypeError, "bidirectional_dynamic_rnn: `reset_state` is not an argument. `dynamic_rnn` and `RNN` accept",
                         lambda: bidirectional_dynamic_rnn(GRU, GRU, X, dtype=F32, resets=X[..., 0] > 0, reset_state=ZEROS)),
    # Parameters
    "params_missing": (ValueError, r"params\['bias'\]`?.*missing: params\['bias'\]",
                       lambda: RNN.cell.apply({"kernel": RNN.params["kernel"]}, X[:, 0], ZEROS)),
    "params_unknown": (ValueError, r"unknown: params\['projection'\]\['kernel'\]",
                       lambda: LSTM.cell.apply({**LSTM.params, "projection": {"kernel": ZEROS}},
                                               X[:, 0], (ZEROS, ZEROS))),
    "params_shape": (ValueError, r"`params\['candidate'\]\['kernel'\]` must have shape \(7, 2\) for inputs of depth 5, got float32\[5, 2\]",
                     lambda: GRU(np.ones((4, 5), np.float32), ZEROS)),
    "params_kind": (TypeError, "`params` must be a dict of arrays, got None",
                    lambda: GRUCell(2).apply(None, X[:, 0], ZEROS)),
    "params_of_a_shared_cell": (ValueError, "must hold cell_0, got .*cell_1.*twice has one set",
                                lambda: shared_cell()),
    "params_of_stack": (ValueError, "must hold cell_0, cell_1, got",
                        lambda: STACK.cell.apply({"cell_0": {}}, X[:, 0], (ZEROS, ZEROS))),
    "params_list": (TypeError, r"`params\['bias'\]` must be an array, got list",
                    lambda: RNN.cell.apply({**RNN.params, "bias": [0.0, 0.0]}, X[:, 0], ZEROS)),
    "params_leaf_none": (TypeError, r"`params\['bias'\]` must be an array, got None",
                         lambda: RNN.cell.apply({**RNN.params, "bias": None}, X[:, 0], ZEROS)),
    # Cells
    "initializer": (TypeError, "`initializer` must be a function", lambda: LSTMCell(2, initializer="zeros")),
    "initializer_factory": (TypeError, "must return an array.*Call functions of jax.nn",
                            lambda: bound(LSTMCell(2, initializer=jax.nn.initializers.orthogonal))),
    "forget_bias": (TypeError, "`forget_bias` must be a number", lambda: LSTMCell(2, forget_bias=np.ones(2))),
    "name": (TypeError, "`name` must be a string, got 5", lambda: GRUCell(2, name=5)),
    "dtype_name": (TypeError, "GRUCell: `dtype` must name a dtype, got 'foo'", lambda: GRUCell(2, dtype="foo")),
    "peepholes_word": (TypeError, "LSTMCell: `use_peepholes` must be True or False, got 'no'",
                       lambda: LSTMCell(2, use_peepholes="no")),
    "tuple_word": (TypeError, "LSTMCell: `state_is_tuple` must be True or False, got 'no'",
                   lambda: LSTMCell(2, state_is_tuple="no")),
    "tuple_number": (TypeError, "BasicLSTMCell: `state_is_tuple` must be True or False, got 1",
                     lambda: jaxrnn.BasicLSTMCell(2, state_is_tuple=1)),
    "units_huge": (ValueError, "`num_units` must be at most 2147483647, got 9223372036854775808",
                   lambda: GRUCell(2**63)),
    "unbound_call": (TypeError, r"LSTMCell: a cell must be bound before it is called.*`cell.bind\(params\)\(inputs, state\)`",
                     lambda: LSTMCell(2)(X[:, 0], ZEROS)),
    "init_keys": (ValueError, r"GRUCell: `key` must be one key, got key<fry>\[2\]. Use jax.vmap",
                  lambda: GRUCell(2).init(KEYS, X[:, 0])),
    "init_raw_keys": (ValueError, r"`key` must be one key, got uint32\[2, 2\]",
                      lambda: GRUCell(2).init(jax.random.key_data(KEYS), X[:, 0])),
    "bind_keys": (ValueError, "GRUCell: `key` must be one key", lambda: GRUCell(2).bind({}, KEYS)),
    "stack_init_key": (TypeError, "MultiRNNCell: `key` must be a random key, got 0",
                       lambda: STACK.cell.init(0, X[:, 0])),
    "function_init_key": (TypeError, "FunctionCell: `key` must be a random key, got 0",
                          lambda: FunctionCell(keep, 2, 2).init(0, X[:, 0])),
    "apply_key": (TypeError, "GRUCell: `key` must be a random key, got 'k'",
                  lambda: GRU.cell.apply(GRU.params, X[:, 0], ZEROS, key="k")),
    "stack_key": (TypeError, "MultiRNNCell: `key` must be a random key, got 'k'",
                  lambda: STACK.cell.apply(STACK.params, X[:, 0], (ZEROS, ZEROS), key="k")),
    "function_key": (TypeError, "FunctionCell: `key` must be a random key, got 'k'",
                     lambda: FunctionCell(keep, 2, 2).apply({}, X[:, 0], ZEROS, key="k")),
    "dropout_key": (TypeError, "DropoutWrapper: `key` must be a random key, got 'k'",
                    lambda: DropoutWrapper(GRU.cell, 0.5).apply(GRU.params, X[:, 0], ZEROS, key="k")),
    "residual_key": (TypeError, "GRUCell: `key` must be a random key, got 'k'",
                     lambda: ResidualWrapper(GRU.cell).apply(GRU.params, X[:, 0], ZEROS, key="k")),
    "at_step_word": (TypeError, "BoundCell: `t` must be an integer, got 'a'", lambda: GRU.at_step("a")),
    "at_step_float": (TypeError, "BoundCell: `t` must be an integer, got 1.9", lambda: GRU.at_step(1.9)),
    "at_step_huge": (ValueError, "BoundCell: `t` must be at most 2147483647", lambda: GRU.at_step(2**40)),
    "at_step_vector": (TypeError, r"BoundCell: `t` must be an integer, got int32\[2\]",
                       lambda: GRU.at_step(jnp.arange(2, dtype=jnp.int32))),
    "zero_state_traced": (TypeError, r"`batch_size` must be an integer, got int64\[\]. Shapes are static under jit.*static_argnames",
                          lambda: jax.jit(lambda n: GRU.zero_state(n, F32))(3)),
    "plain_state": (TypeError, r"must have the structure \(\*, \*\), got LSTMStateTuple.*`LSTMStateTuple\(c, h\)`",
                    lambda: dynamic_rnn(LSTM, X, [1] * 4, initial_state=(ZEROS, ZEROS))),
    "depth": (ValueError, r"`params\['kernel'\]` must have shape \(6, 8\) for inputs of depth 4, got float32\[5, 8\]",
              lambda: dynamic_rnn(LSTM, np.ones((4, 5, 4), np.float32), dtype=F32)),
    "columns_of_params": (ValueError, r"`params\['kernel'\]` must have shape \(5, 2\) for inputs of depth 3, got float32\[5, 3\]",
                          lambda: RNN.cell.apply({**RNN.params, "kernel": np.ones((5, 3), np.float32)}, X[:, 0], ZEROS)),
    # Custom cells
    "spec_shape": (TypeError, "ParamSpec: `shape` must be a tuple of integers, got 'a'", lambda: ParamSpec("a", abs)),
    "spec_size": (TypeError, "ParamSpec: `shape` must be an integer, got 1.5", lambda: ParamSpec((1.5,), abs)),
    "spec_initializer": (TypeError, "ParamSpec: `initializer` must be a function, got 3", lambda: ParamSpec((1,), 3)),
    "stage_update": (TypeError, "Stage: `update` must be a function, got 3", lambda: Stage(3, 1, 1, abs, None)),
    "stage_kernel": (TypeError, "Stage: `kernel` must be a function, got None", lambda: Stage(abs, 1, 1, None, None)),
    "stage_bias": (TypeError, "Stage: `bias` must be a function, got 'b'", lambda: Stage(abs, 1, 1, abs, "b")),
    "stage_columns": (TypeError, "Stage: `columns` must be an integer, got 1.5", lambda: Stage(abs, 1, 1.5, abs, None)),
    "stage_path": (TypeError, "Stage: `path` must be a string, got 3", lambda: Stage(abs, 1, 1, abs, None, 3)),
    "stage_inputs": (TypeError, "Stage: `takes_inputs` must be True or False, got 'no'",
                     lambda: Stage(abs, 1, 1, abs, None, None, "no")),
    "enter_no_pair": (ValueError, r"Custom: `enter` must return \(operand, carry\),.* got float32\[4, 2\]",
                      lambda: step_of(Custom(enters=lambda h: h))),
    "update_no_pair": (ValueError, r"Custom: the update of stage 0 must return \(operand, carry\),.* got float32\[2, 2\]",
                       lambda: step_of(Custom(updates=lambda z, h: h[:2]))),
    "operand": (ValueError, r"Custom: `enter` must return an operand of shape \(4, 2\) to fit the `rows` of stage 0, got float32\[4, 1\]",
                lambda: step_of(Custom(enters=lambda h: (h[:, :1], h)))),
    "columns": (ValueError, r"the update of stage 0 must return a new state with shapes float32\[4, 2\], got float32\[4, 3\]. The stage computes z with 3 `columns`",
                lambda: step_of(Custom(columns=3, updates=lambda z, h: (z, z)))),
    "columns_of_update": (TypeError, r"mul got incompatible[\s\S]*Stage 0 has 3 `columns`, so its update received z float32\[4, 3\], with the carry float32\[4, 2\] and no parameter of `elementwise_specs`\.",
                          lambda: step_of(Custom(columns=3, updates=lambda z, h: (z * h, z * h)))),
    "stages_without_a_comma": (TypeError, r"OfStages: `stages` must be a property with a tuple of at least one Stage, got Stage\. A tuple of one is `\(stage,\)`\.",
                               lambda: step_of(OfStages(STAGE))),
    "no_stages": (TypeError, r"OfStages: `stages` must be .* got tuple", lambda: step_of(OfStages(()))),
    "stages_of_one_path": (ValueError, r"OfStages: parameters \(see `path` of `Stage`\) must have different names, got 'kernel' twice",
                           lambda: step_of(OfStages((STAGE, STAGE)))),
    "state_without_enter": (TypeError, r"OfStages: `enter` must be defined for a state of several arrays, got \(\*, \*\)",
                            lambda: step_of(OfStages((STAGE,), (2, 2)))),
    "init_fn_signature": (TypeError, r"FunctionCell: `init_fn` must accept \(key, inputs, dtype\), got the signature \(k, x\)",
                          lambda: FunctionCell(keep, 2, 2, lambda k, x: {})),
    "two_coefficients": (ValueError, r"`coefficients` must return \(a, b, rest\), got \(\*, \*\)", lambda: step_of(TwoCoefficients(2))),
    "shape_word": (TypeError, "`dims` must be an integer, got '5'", lambda: TensorShape("5")),
    "zero_state_negative": (ValueError, "`batch_size` must be at least 0", lambda: GRU.zero_state(-2, F32)),
    "zero_state_tuple": (TypeError, "`batch_size` must be an integer, got tuple", lambda: GRU.zero_state((4,), F32)),
    "zero_state_dtype": (TypeError, "`dtype` must name a dtype, got None", lambda: GRU.zero_state(4, None)),
    "initial_state_of_nothing": (ValueError, "`inputs` must be arrays", lambda: GRU.get_initial_state([])),
    "joined_matrix": (ValueError, "must have one vector as its state, because",
                      lambda: MultiRNNCell([FunctionCell(keep, TensorShape([5, 5]), 3)], state_is_tuple=False)),
    "forget_bias_none": (TypeError, "`forget_bias` must be a number, got None", lambda: LSTMCell(2, forget_bias=None)),
    "clip_word": (TypeError, "`cell_clip` must be a number, got '1'", lambda: LSTMCell(2, cell_clip="1")),
    "keep_prob_string": (TypeError, "`input_keep_prob` must be a number, got '0.5'",
                         lambda: DropoutWrapper(GRUCell(2), "0.5")),
    "units_float": (TypeError, "`num_units` must be an integer, got 2.5", lambda: GRUCell(2.5)),
    "units_negative": (ValueError, "`num_units` must be at least 0, got -1", lambda: GRUCell(-1)),
    "num_proj": (ValueError, "`num_proj` must be at least 1, got 0", lambda: LSTMCell(2, num_proj=0)),
    "cell_clip": (ValueError, r"`cell_clip` must be in \[0, inf\], got -1", lambda: LSTMCell(2, cell_clip=-1)),
    "clip_array": (TypeError, "`proj_clip` must be a number.*static",
                   lambda: LSTMCell(2, proj_clip=np.ones(3))),
    "activation_name": (ValueError, "must be one of elu, .*got 'tan'", lambda: GRUCell(2, activation="tan")),
    "activation_kind": (TypeError, "must be None, a name or a function, got 3", lambda: GRUCell(2, activation=3)),
    "cell_dtype": (ValueError, "only supports floating point, got `dtype` of int32",
                   lambda: GRUCell(2, dtype=jnp.int32)),
    "dtype_of_cell": (TypeError, "must share one dtype, got float32.*and float64",
                      lambda: dynamic_rnn(GRUCell(2, dtype="float64").bind(GRU.params), X, dtype=F32)),
    "init_rank": (ValueError, r"must have rank 2, \[batch, depth\], got float32\[4, 5, 3\]",
                  lambda: GRUCell(2).init(jax.random.key(0), X)),
    "init_integers": (ValueError, "only supports floating point",
                      lambda: GRUCell(2).init(jax.random.key(0), X[:, 0].astype(int))),
    "step_nest": (ValueError, r"`inputs` must be one array \[batch, depth\], got tuple",
                  lambda: GRU((X[:, 0], X[:, 0]), ZEROS)),
    "step_not_an_array": (TypeError, "`inputs` must be one array", lambda: GRU("x", ZEROS)),
    "zero_state_float": (TypeError, "`batch_size` must be an integer, got 4.0",
                         lambda: GRU.zero_state(4.0, F32)),
    "zero_state_array": (TypeError, r"must be an integer, got float32\[4, 2\].*x.shape\[0\]",
                         lambda: GRU.zero_state(ZEROS, F32)),
    "zero_state_none": (ValueError, "`batch_size` must be known, got None",
                        lambda: GRU.zero_state(None, F32)),
    "initial_state_batch": (ValueError, r"`batch_size` must match `inputs` \(4\), got 3",
                            lambda: GRU.get_initial_state(X[:, 0], batch_size=3)),
    "initial_state_dtype": (ValueError, r"`dtype` must match `inputs` \(float32\)",
                            lambda: GRU.get_initial_state(X[:, 0], dtype="float64")),
    "initial_state_nothing": (ValueError, "or both `batch_size` and `dtype`, must be given",
                              lambda: GRU.get_initial_state(batch_size=4)),
    "lstm_state_dtype": (TypeError, "`dtype` requires `c` and `h` of one dtype",
                         lambda: LSTMStateTuple(ZEROS, ZEROS.astype(np.float64)).dtype),
    "function": (TypeError, "FunctionCell: `fn` must be a function, got 3", lambda: FunctionCell(3, 2, 2)),
    "function_without_key": (TypeError, r"FunctionCell: `fn` must accept \(params, inputs, state, key=None\), got the signature \(p, x, s\)",
                             lambda: FunctionCell(lambda p, x, s: (x, s), 2, 2)),
    "function_init": (TypeError, "`init_fn` must be a function", lambda: FunctionCell(abs, 2, 2, 3)),
    "function_size": (TypeError, "must be an int or a TensorShape, got 'two'",
                      lambda: FunctionCell(abs, {"a": "two"}, 2)),
    "function_size_none": (ValueError, r"`output_size\[1\]` must be known, got None",
                           lambda: FunctionCell(abs, 2, (2, None))),
    "shape_negative": (ValueError, "must be at least 0, got -1", lambda: TensorShape([-1])),
    "shape_unknown": (ValueError, "must be known, got None", lambda: TensorShape([None])),
    "shape_kind": (TypeError, "`dims` must be an integer, got 1.5", lambda: TensorShape([1.5])),
    # The order of Flax, and arguments that a cell does not have
    "flax_step": (ValueError, r"^LSTMCell: `inputs` must be one array \[batch, depth\], got LSTMStateTuple. Pass one step of inputs, before any state\.$",
                  lambda: LSTM(LSTMStateTuple(ZEROS, ZEROS), X[:, 0])),
    "flax_init": (TypeError, r"^GRUCell: `dtype` must name a dtype, got float32\[4, 3\]. Call `cell.init\(key, inputs\)`, without the carry",
                  lambda: GRUCell(2).init(jax.random.key(0), ZEROS, X[:, 0])),
    "flax_init_of_a_stack": (TypeError, "^MultiRNNCell: `dtype` must name a dtype, got float32",
                             lambda: STACK.cell.init(jax.random.key(0), (ZEROS, ZEROS), X[:, 0])),
    "flax_init_of_a_function": (TypeError, "^FunctionCell: `dtype` must name a dtype, got float32",
                                lambda: FunctionCell(keep, 2, 2).init(jax.random.key(0), ZEROS, X[:, 0])),
    "dtype_array": (TypeError, r"`dtype` must name a dtype, got float32\[4, 2\]. Use", lambda: dynamic_rnn(GRU, X, dtype=ZEROS)),
    "step_key": (TypeError, r"^BoundCell: `scope` must be a string, got key<fry>\[\]. Pass a key to `cell.bind\(params, key\)`.$",
                 lambda: GRU(X[:, 0], ZEROS, jax.random.key(0))),
    "bind_of_a_class": (TypeError, r"^RNNCell.bind: missing 1 required positional argument: 'params'. `cell.init\(key, inputs\)` creates them.$",
                        lambda: GRUCell.bind(GRU.params)),
    "lengths_arrays": (ValueError, r"must hold one integer for each row, got \[float32\[4, 2\], float32\[4, 3\]\].$",
                       lambda: dynamic_rnn(GRU, X, [ZEROS, X[:, 0]], dtype=F32)),
    # Wrappers
    "stack_of_one_object": (ValueError, r"must have shape .* for inputs of depth 2[\s\S]*`cells\[1\]` .* is the same object as `cells\[0\]`",
                            lambda: MultiRNNCell([GRUCell(2)] * 2).init(jax.random.key(0), X[:, 0])),
    "stack_tuple": (TypeError, "MultiRNNCell: `state_is_tuple` must be True or False, got 'no'",
                    lambda: MultiRNNCell([GRUCell(2)], state_is_tuple="no")),
    "variational_word": (TypeError, "DropoutWrapper: `variational_recurrent` must be True or False, got 'no'",
                         lambda: DropoutWrapper(GRUCell(2), variational_recurrent="no")),
    "seed_word": (TypeError, "DropoutWrapper: `seed` must be an integer, got 'a'", lambda: DropoutWrapper(GRUCell(2), seed="a")),
    "seed_float": (TypeError, "`seed` must be an integer, got 1.5", lambda: DropoutWrapper(GRUCell(2), seed=1.5)),
    "seed_huge": (ValueError, "`seed` must be at most 9223372036854775807", lambda: DropoutWrapper(GRUCell(2), seed=2**70)),
    "dropout_dtype": (ValueError, "DropoutWrapper: only supports floating point, got `dtype` of int32",
                      lambda: DropoutWrapper(GRUCell(2), 0.5, variational_recurrent=True, input_size=3, dtype=jnp.int32)),
    "dropout_dtype_word": (TypeError, "DropoutWrapper: `dtype` must name a dtype, got 'zz'",
                           lambda: DropoutWrapper(GRUCell(2), dtype="zz")),
    "dropout_size": (TypeError, "`input_size` must be an int or a TensorShape, got 'x'",
                     lambda: DropoutWrapper(GRUCell(2), input_size="x")),
    "stack_empty": (ValueError, "must hold at least one cell", lambda: MultiRNNCell([])),
    "stack_kind": (TypeError, "must be a list or tuple", lambda: MultiRNNCell(GRUCell(2))),
    "stack_of_bound": (TypeError, r"`cells\[1\]` must be an RNNCell.*Pass `cell.cell`",
                       lambda: MultiRNNCell([GRUCell(2), GRU])),
    "stack_joined_nest": (ValueError, r"`cells\[0\]` must have one vector as its state, because",
                          lambda: MultiRNNCell([LSTMCell(2)], state_is_tuple=False)),
    "stack_state_kind": (ValueError, "a tuple of 2 states, one per cell, got float32",
                         lambda: STACK(X[:, 0], ZEROS)),
    "wrapped": (TypeError, "ResidualWrapper: `cell` must be an RNNCell", lambda: ResidualWrapper(abs)),
    "residual_fn": (TypeError, "`residual_fn` must be a function", lambda: ResidualWrapper(GRUCell(2), 3)),
    "residual_shape": (ValueError, r"`inputs` must have the shape of the output \(float32\[4, 2\]\), got float32\[4, 3\]",
                       lambda: bound(ResidualWrapper(GRUCell(2)))(X[:, 0], ZEROS)),
    "residual_width": (ValueError, r"must have shape \(4, 2\) to match `output_size`, got float32\[4, 5\]",
                       lambda: dynamic_rnn(bound(ResidualWrapper(
                           GRUCell(2), lambda x, y: jnp.concatenate([x, y], 1))), X, dtype=F32)),
    "device_kind": (TypeError, "`device` must be a jax.Device", lambda: DeviceWrapper(GRUCell(2), 3)),
    "device_name": (ValueError, "must name an available device, got '/gpu:9'. Available: cpu:0",
                    lambda: bound(DeviceWrapper(GRUCell(2), "/gpu:9"))(X[:, 0], ZEROS)),
    "device_negative": (ValueError, "must name an available device, got 'cpu:-1'",
                        lambda: DeviceWrapper(GRUCell(2), "cpu:-1").zero_state(4, F32)),
    "keep_prob_range": (ValueError, r"`input_keep_prob` must be in \[0, 1\], got 1.5",
                        lambda: DropoutWrapper(GRUCell(2), 1.5)),
    "keep_prob_nan": (ValueError, r"must be in \[0, 1\]", lambda: DropoutWrapper(GRUCell(2), float("nan"))),
    "keep_prob_kind": (TypeError, "`state_keep_prob` must be a number",
                       lambda: DropoutWrapper(GRUCell(2), state_keep_prob="half")),
    "keep_prob_traced": (TypeError, "`output_keep_prob` must be a number.*static",
                         lambda: jax.jit(lambda p: DropoutWrapper(GRUCell(2), output_keep_prob=p))(0.5)),
    "visitor": (TypeError, "`dropout_state_filter_visitor` must be a function",
                lambda: DropoutWrapper(GRUCell(2), dropout_state_filter_visitor=3)),
    "mask_per_row": (ValueError, "DropoutWrapper: `mask_per_row` must be False without `variational_recurrent`",
                     lambda: DropoutWrapper(GRUCell(2), 0.5, mask_per_row=True)),
    "variational_dtype": (ValueError, "`dtype` must be given for variational dropout",
                          lambda: DropoutWrapper(GRUCell(2), variational_recurrent=True)),
    "variational_size": (ValueError, "`input_size` must be given for variational input",
                         lambda: DropoutWrapper(GRUCell(2), 0.5, variational_recurrent=True, dtype=F32)),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words", "call"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(error, words, call):
    with pytest.raises(error, match=re.compile(words, re.DOTALL)):
        call()


def test_the_cells_own_error_says_where_it_was_raised():
    with pytest.raises(ValueError, match="nothing is broadcast") as caught:
        dynamic_rnn(GRU, X, initial_state=ZEROS[1:])
    notes = "".join(caught.value.__notes__)
    assert "Raised by one step of `cell`" in notes
    assert "inputs float32[4, 3] and initial state float32[3, 2]" in notes


def test_lengths_of_another_batch_under_jit():
    with pytest.raises(ValueError, match=r"length batch_size \(4\)"):
        jax.jit(lambda n: dynamic_rnn(GRU, X, n, dtype=F32))(jnp.ones(3, jnp.int32))


def test_a_protocol_cell_may_lack_its_zero_state_alone():
    class Sizes:
        state_size = output_size = 3

        def __call__(self, inputs, state):
            return inputs, state

    with pytest.raises(TypeError, match="lacks `zero_state` or `get_initial_state`"):
        jaxrnn.dynamic_rnn(Sizes(), X, dtype=F32)


def test_a_wrong_depth_names_the_layer_of_a_stack():
    with pytest.raises(ValueError, match="for inputs of depth 4") as caught:
        dynamic_rnn(STACK, np.ones((4, 5, 4), np.float32), dtype=F32)
    assert "Raised by `cells[0]`" in "".join(caught.value.__notes__)


def test_keys_under_vmap_are_one_for_each_row():
    params = jax.vmap(lambda key: GRUCell(2).init(key, X[:, 0]))(KEYS)
    cell = DropoutWrapper(GRUCell(2), 0.5)
    run = lambda p, key: dynamic_rnn(cell.bind(p, key), X, dtype=F32)[0]
    assert jax.vmap(run)(params, KEYS).shape == (2, 4, 5, 2)


def test_a_dtype_that_jax_replaces_is_warned_of():
    x, key = jnp.asarray(X), jax.random.key(0)
    with jax.enable_x64(False):
        for wide in (jnp.float64, np.float64, "float64", np.dtype("float64")):
            with pytest.warns(UserWarning, match="`dtype` is float64, for which JAX"):
                dynamic_rnn(GRU, x, dtype=wide)
        dynamic_rnn(GRU, x, dtype=float)
        GRUCell(2).init(key, X[:, 0].astype(np.float64))
        GRUCell(2).get_initial_state(X[:, 0].astype(np.float64))
    wide = helpers.bound(GRUCell(2, dtype="float64"), 3)
    dynamic_rnn(wide, x.astype(float), dtype="float64")


def test_a_function_without_parameters_that_reads_some():
    step = lambda params, inputs, state, key=None: (inputs @ params["w"], state)
    note = "`params` is empty because `init_fn` is None."
    noted = []
    for init_fn in (None, lambda key, inputs, dtype: {}):
        with pytest.raises(KeyError, match="'w'") as caught:
            dynamic_rnn(FunctionCell(step, 2, 2, init_fn).bind({}), X, dtype=F32)
        noted.append(note in caught.value.__notes__)
    assert noted == [True, False]


@pytest.mark.parametrize("error", [KeyError("k"), UnicodeError("u", 1)])
def test_an_error_of_an_update_keeps_its_arguments(error):
    args = error.args

    def fail(z, h):
        raise error

    with pytest.raises(type(error)) as caught:
        step_of(Custom(updates=fail))
    assert caught.value.args == args
    words = "Stage 0 has 2 `columns`, so its update received z float32[4, 2]"
    assert words in "".join(caught.value.__notes__)
