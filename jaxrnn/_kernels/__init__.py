"""The loop of an affine cell, run by a kernel, a program for one kind of machine."""
