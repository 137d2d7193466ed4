"""Whole sequences of common cells on CPUs, by loops in C++."""
