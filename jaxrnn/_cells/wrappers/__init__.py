"""Cells that hold other cells. A wrapper says what one step is, and no more."""
