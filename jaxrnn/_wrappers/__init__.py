"""Wrapper cells."""
