"""What a run ran on: versions and hardware, for the record."""

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("climlstm", "torch", "numpy", "xarray", "dask", "zarr", "ray")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result, where they are installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
