"""Sequences of thousands of steps: an LRU compared with an LSTM."""
