"""Tools of both readers of HDF5: safe opening, attributes as text, projections."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np

from climlstm.environment import import_pyproj
from climlstm.errors import DataError


@contextmanager
def opened(path: str) -> Iterator[h5py.File]:
    """An HDF5 file for reading. Raises DataError for a file that is none, or lacks a part."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except KeyError as error:
        raise DataError(f"'{path}' is not in this format: {error.args[0]}.") from error
    except OSError as error:
        raise DataError(f"'{path}' cannot be read as HDF5: {error}.") from error


def text(value: Any) -> str:
    """An attribute as text: bytes, arrays of one, or text already."""
    first = np.ravel(value)[0] if isinstance(value, np.ndarray) else value
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def number(value: Any) -> float:
    return float(np.ravel(value)[0])


def crs_of(projection: str, path: str) -> Any:
    """The pyproj CRS of a PROJ string; axes that it has in km become metres."""
    pyproj = import_pyproj()
    parts = []
    for part in projection.split():
        key, _, value = part.partition("=")
        # A radius of the Earth of 6378 is in km, and so are the coordinates, as KNMI has them.
        if key in ("+a", "+b", "+R") and float(value) < 1e5:
            part = f"{key}={float(value) * 1000!r}"
        elif key == "+units":
            continue
        parts.append(part)
    try:
        return pyproj.CRS.from_proj4(" ".join(parts))
    except pyproj.exceptions.CRSError as error:
        raise DataError(
            f"'{path}': the projection '{projection}' is not understood: {error}."
        ) from error
