"""Shapes of states and outputs compare as in TensorFlow."""

from jaxrnn import TensorShape


def test_shapes_are_compared_as_those_of_tensorflow():
    assert TensorShape(1) == TensorShape([1]) == (1,)
    assert TensorShape([1, 2]) == [1, 2]
    assert (1, 2) == TensorShape([1, 2]) != (1, 3)
    assert TensorShape([1, 2]) not in ("ab", 5.5, None)
    assert hash(TensorShape([1, 2])) == hash((1, 2))
    assert TensorShape([1, 2]).ndims == 2
