"""Derivatives that JAX lacks: bounded loops, and functions with custom rules."""
