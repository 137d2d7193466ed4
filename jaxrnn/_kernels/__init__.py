"""Kernels that run the loop of an affine cell on one kind of machine."""
