"""The check of flags that are counts."""


def check_counts(config, *names):
    """Raises ValueError, which tyro prints, for a field below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"--{name} must be at least 1.")
