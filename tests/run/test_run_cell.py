"""Runs whose valid steps move to the front, or whose rows stay in step."""

import numpy as np
import pytest

import jaxrnn


def count(params, inputs, state, key=None):
    return state + 1, state + 1


@pytest.mark.parametrize("rows_interact", [False, True])
def test_a_reset_at_a_masked_step_waits_for_a_valid_one(rows_interact):
    cell = jaxrnn.FunctionCell(count, 1, 1, rows_interact=rows_interact).bind({})
    mask = np.array([[1, 0, 1, 1, 0, 1]], bool)
    resets = np.array([[0, 1, 0, 0, 0, 1]], bool)
    given = {"initial_state": np.full((1, 1), 10.0), "mask": mask, "resets": resets}
    outputs, _ = jaxrnn.dynamic_rnn(cell, np.zeros((1, 6, 1)), **given)
    assert outputs[0, :, 0].tolist() == [11, 0, 1, 2, 0, 1]
