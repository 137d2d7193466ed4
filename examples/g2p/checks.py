"""Checks of a config dataclass whose fields are flags."""


def check(config, name, accepted, accepts):
    """Exits with the reason unless `accepts` is true of the field's value."""
    value = getattr(config, name)
    if not accepts(value):
        flag = name.replace("_", "-")
        raise SystemExit(f"--{flag} must be {accepted}, got {value}")


def positive_ints(config, *names):
    """Exits with the reason unless all named fields are at least 1."""
    for name in names:
        check(config, name, "at least 1", lambda n: n >= 1)
