"""Cells, with their base classes, hyperparameters and checks."""
