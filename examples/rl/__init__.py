"""Sequences of thousands of steps: an LRU beside an LSTM."""
