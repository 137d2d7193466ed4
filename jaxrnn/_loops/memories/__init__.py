"""Runs matrix memories in chunks of steps: one loop, with formulas for each rule."""
