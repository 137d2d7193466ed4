"""Derivatives that JAX lacks: bounded loops, custom rules, copies to host memory."""
