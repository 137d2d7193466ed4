"""Derivatives that JAX lacks: of bounded loops, and of functions with own rules."""
