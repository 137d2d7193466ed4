"""Matrix memories in chunks of steps: one loop, and the formulas of each rule."""
