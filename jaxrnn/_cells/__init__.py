"""The cells, and what they are made of: base classes, hyper-parameters and checks."""
