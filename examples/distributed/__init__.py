"""Runs on several devices and processes; README.md explains them."""
