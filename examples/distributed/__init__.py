"""Training on several devices and processes; README.md explains it."""
