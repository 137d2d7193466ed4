"""The loops of wrappers; each one runs the loop of the wrapped cell."""
