"""The one check of a value, and its error: a ValueError or a TypeError."""

from .errors import describe


def expect(
    ok: object,
    name: str,
    must: str,
    got: object,
    fix: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Raises an error unless `ok`: "`name` must <must>, got <got>. <fix>"."""
    if not ok:
        raise error(f"`{name}` must {must}, got {describe(got)}. {fix}".rstrip())
