"""Runs whole sequences of common cells on CPUs with loops in C++."""
