"""The loop of an affine cell, run by a kernel for one kind of machine."""
