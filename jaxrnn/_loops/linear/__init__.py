"""Runs linear recurrences in chunks of steps, also with time divided over devices."""
