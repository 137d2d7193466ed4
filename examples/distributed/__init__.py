"""Training on several devices and processes; see README.md."""
